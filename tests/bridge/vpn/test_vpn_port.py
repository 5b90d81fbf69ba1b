"""The port vpn under a virtual clock: the real walk, loop and tunnel, a second tunnel as the far end, no socket.

The file has more than 600 lines, because every case plays in the same world of both ends, which is a fifth of it.
"""

from __future__ import annotations

import os
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Raw

from bridge.config.into_routes import routes_from
from bridge.config.into_tunnel import Peers, read_key
from bridge.config.into_walk import gateway_settings
from bridge.config.load import read
from bridge.control.answers import route
from bridge.control.answers.peers import described
from bridge.control.answers.question import Subject
from bridge.loop.loop import Loop
from bridge.ports.memory import MemoryPort
from bridge.state.stamps import StampFile
from bridge.vpn.endpoint_names import RESOLVE_AGAIN_S
from bridge.vpn.port import VpnPort
from bridge.vpn.resolver import OnResolved
from bridge.walk.gateway import Gateway
from route.lists import Prefix
from tunnel.effects import (
    NO_ROLE,
    Datagram,
    Effects,
    Endpoint,
    Network,
    Networks,
    PeerConfig,
    Received,
    Role,
    Stamps,
    TooBig,
)
from tunnel.endpoint import Tunnel
from tunnel.envelope import node_id
from tunnel.messages import MessageKind, kind_of
from tunnel.primitives import public_key
from tunnel.tai64n import NEVER
from wire.drop import Drop
from wire.gso import GSO_TCPV4, GsoHeader
from wire.units import SECOND_NS

CONFIGURATION = """
[tun0]
address = "192.168.192.211/24"
[tap1]
address = "192.168.1.2/24"
gateway = "192.168.1.1"
[vpn]
address = "192.168.192.210"
node = "hk"
[peer.hk]
allowed_ips = ["0.0.0.0/0"]
[peer.sg]
allowed_ips = ["9.9.9.0/24"]
"""
HOST, REMOTE = "192.168.192.211", "8.8.8.8"
OUR_KEY, FAR_KEY, OTHER_KEY = (bytes([number]) * 32 for number in (1, 2, 3))
HOME = Endpoint(bytes((192, 0, 2, 1)), 51820)
FAR = Endpoint(bytes((192, 0, 2, 2)), 51820)
HK = PeerConfig("hk", public_key(FAR_KEY), (Network(0, 0),), FAR)
SG = PeerConfig("sg", public_key(OTHER_KEY), (Network(0x09090900, 24),), None)
WALL_NS = 1_700_000_000 * SECOND_NS


class Wire:
    """Datagrams that left, and those that wait to be read."""

    def __init__(self) -> None:
        self.sent: list[Datagram] = []
        self.waiting: deque[Received] = deque()
        self.signals: list[TooBig] = []
        self.refuses = 0
        self._event = os.eventfd(0, os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._event

    def deliver(self, datagrams: Sequence[Datagram], source: Endpoint = FAR) -> None:
        self.waiting.extend(Received(datagram, source) for _, datagram, _ in datagrams)
        os.eventfd_write(self._event, 1)

    def read_burst(self, limit: int) -> list[Received]:
        os.eventfd_read(self._event)
        burst = list(self.waiting)
        self.waiting.clear()
        return burst

    def send_burst(self, datagrams: Sequence[Datagram]) -> Counter[Drop]:
        self.sent += datagrams[self.refuses :]
        return Counter({Drop.PORT_FULL: self.refuses}) if self.refuses else Counter()

    def read_signals(self) -> list[TooBig]:
        signals, self.signals = self.signals, []
        return signals

    def close(self) -> None:
        os.close(self._event)


class World:
    def __init__(self, peers: Peers, unserved: set[str], stamps: Mapping[bytes, Stamps] | None = None) -> None:
        self.now = 1000 * SECOND_NS
        self.asked: list[tuple[str, OnResolved]] = []
        self.kept: list[Mapping[bytes, Stamps]] = []
        self.config = config = read(CONFIGURATION, Path("gateway.toml"), "replay")
        self.gateway = Gateway(gateway_settings(config), routes_from(config), random.Random(1))
        self.loop = Loop(self.gateway, clock=lambda: self.now)
        self.tun0 = MemoryPort("tun0", "tun")
        self.loop.attach(self.tun0)
        self.wire = Wire()
        self.far = self.tunnel(FAR_KEY, [PeerConfig("home", public_key(OUR_KEY), (Network(0xC0A8C000, 24),))])
        self.vpn = VpnPort(
            self.loop,
            self.gateway,
            self.tunnel(OUR_KEY, peers.configs, peers.role, stamps),
            self.wire,
            peers,
            keep=self.kept.append,
            resolve=lambda host, answer: self.asked.append((host, answer)),
            unserved=unserved,
        )

    def tunnel(
        self,
        key: bytes,
        peers: Sequence[PeerConfig],
        role: Role = NO_ROLE,
        stamps: Mapping[bytes, Stamps] | None = None,
    ) -> Tunnel:
        return Tunnel(
            key,
            peers,
            self.now,
            wall_ns=lambda: WALL_NS + self.now,
            random_bytes=random.Random(key).randbytes,
            role=role,
            stamps=stamps,
        )

    def send(self, *packets: IP, gso: GsoHeader | None = None) -> None:
        """The host sends; one turn of the loop."""
        self.tun0.deliver(*map(bytes, packets), gso=gso)
        self.loop.turn(0)

    def take(self) -> list[Datagram]:
        sent, self.wire.sent = self.wire.sent, []
        return sent

    def at_far(self) -> Effects:
        """The far end takes what we sent; its answers come to us."""
        effects = self.far.receive([Received(datagram, HOME) for _, datagram, _ in self.take()], self.now)
        self.wire.deliver(effects.datagrams)
        self.loop.turn(0)
        return effects

    def meet(self) -> list[bytes]:
        """Datagrams go to and fro until nobody has one; the packets at the far end."""
        packets: list[bytes] = []
        while self.wire.sent:
            packets += [packet for _, packet in self.at_far().packets]
        return packets

    def wait(self, seconds: float) -> None:
        end = self.now + round(seconds * SECOND_NS)
        while self.now < end:
            self.now = min(self.now + SECOND_NS // 2, end)
            self.loop.turn(0)

    def received(self) -> list[IP]:
        sent, self.tun0.sent = self.tun0.sent, []
        return [IP(frame) for frame, _ in sent]

    def drops(self) -> dict[Drop, int]:
        return {reason: number for reason, number in self.gateway.counters.drops.items() if number}

    def close(self) -> None:
        self.vpn.close()
        self.loop.close()
        self.tun0.close()
        self.wire.close()


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    monkeypatch.chdir(tmp_path)  # no `route` folder lies beside the configuration
    made: list[World] = []

    def build(
        *configs: PeerConfig,
        names: dict[str, tuple[str, int]] | None = None,
        unserved: str = "",
        stamps: Mapping[bytes, Stamps] | None = None,
    ) -> World:
        made.append(World(Peers(configs or (HK,), names or {}), set(unserved.split()), stamps))
        return made[-1]

    yield build
    for world in made:
        world.close()


def udp(number: int = 0, destination: str = REMOTE) -> IP:
    return IP(src=HOST, dst=destination, ttl=64) / UDP(sport=5000 + number, dport=53) / Raw(b"x" * 40)


def test_the_first_packet_calls_waits_and_leaves_with_the_session(make: Callable[..., World]) -> None:
    world = make()
    world.send(udp())
    assert [(endpoint, len(datagram)) for endpoint, datagram, _ in world.wire.sent] == [(FAR, 148)]
    [packet] = world.meet()
    assert (IP(packet).src, IP(packet).dst, IP(packet).ttl) == (HOST, REMOTE, 63)


def test_a_peer_of_an_earlier_run_is_called_before_anybody_sends(make: Callable[..., World]) -> None:
    """It may still seal for that run, and would wait 15 s for an answer. Strangers are not called."""
    known = {public_key(FAR_KEY): Stamps(NEVER, b"\x40" + bytes(11)), public_key(OTHER_KEY): Stamps(NEVER, NEVER)}
    other = replace(SG, endpoint=Endpoint(FAR.address, 51821))
    world = make(HK, other, stamps=known)
    world.vpn.begin()
    assert [(endpoint, len(datagram)) for endpoint, datagram, _ in world.wire.sent] == [(FAR, 148)]
    world.meet()
    assert world.vpn.status()[0].latest_handshake is not None
    stranger = make()
    stranger.vpn.begin()
    assert stranger.wire.sent == []


def test_stamps_are_kept_before_their_datagram_leaves(make: Callable[..., World]) -> None:
    world = make()
    keep, sent_at_keep = world.kept.append, []

    def kept(stamps: Mapping[bytes, Stamps]) -> None:
        sent_at_keep.append(len(world.wire.sent))
        keep(stamps)

    world.vpn._keep = kept
    world.send(udp())
    assert sent_at_keep == [0]
    assert world.kept[0][HK.public_key].sent != bytes(12)


def test_a_burst_leaves_in_order_and_what_comes_is_walked(make: Callable[..., World]) -> None:
    world = make()
    world.send(udp())
    world.meet()
    world.send(*(udp(number) for number in range(40)))
    assert [IP(packet).sport for packet in world.meet()] == [5000 + number for number in range(40)]
    answer = IP(src=REMOTE, dst=HOST, ttl=60) / UDP(sport=53, dport=5001) / Raw(b"answer")
    world.wire.deliver(world.far.send("home", [bytes(answer)], world.now).datagrams)
    world.loop.turn(0)
    [got] = world.received()
    assert (got.src, got.dst, got.ttl, bytes(got[UDP].payload)) == (REMOTE, HOST, 59, b"answer")


def test_a_super_frame_is_cut_into_packets_with_whole_checksums(make: Callable[..., World]) -> None:
    world = make()
    world.send(udp())
    world.meet()
    data = random.Random(7).randbytes(10_000)
    whole = IP(bytes(IP(src=HOST, dst=REMOTE) / TCP(sport=5000, dport=80, flags="PA", seq=9) / Raw(data)))
    world.send(whole, gso=GsoHeader(True, GSO_TCPV4, 40, 1380, 20, 16))
    packets = [IP(packet) for packet in world.meet()]
    assert b"".join(bytes(packet[TCP].payload) for packet in packets) == data
    assert len(packets) == 8
    for packet in packets:
        told = packet[TCP].chksum
        del packet[TCP].chksum
        assert IP(bytes(packet))[TCP].chksum == told


def test_a_node_without_an_endpoint_is_unreachable_until_it_calls(make: Callable[..., World]) -> None:
    world = make(replace(HK, endpoint=None))
    world.send(udp())
    [error] = world.received()
    assert (error[ICMP].type, error[ICMP].code, error.dst) == (3, 1, HOST)
    assert world.drops() == {Drop.ROUTE_NO_TUNNEL: 1}
    world.far.set_endpoint("home", HOME, world.now)
    world.wire.deliver(world.far.call("home", world.now).datagrams)
    world.loop.turn(0)
    assert world.gateway.unreachable_nodes == set()
    world.meet()
    world.send(udp())
    assert len(world.meet()) == 1


def test_after_a_handshake_in_vain_senders_are_told_and_the_next_packet_calls_again(make: Callable[..., World]) -> None:
    world = make()
    world.send(udp())
    world.wait(120)
    assert world.gateway.unreachable_nodes == {"hk"}
    [error] = world.received()  # the packet that waited
    assert (error[ICMP].type, error[ICMP].code) == (3, 1)
    assert IP(bytes(error[ICMP].payload)).src == HOST
    assert world.drops() == {Drop.TUNNEL_GAVE_UP: 1}
    assert len(world.take()) == 20
    world.send(udp(1))
    [again] = world.received()
    assert again[ICMP].code == 1
    assert [len(datagram) for _, datagram, _ in world.wire.sent] == [148]
    world.meet()
    assert world.gateway.unreachable_nodes == set()
    world.send(udp(2))
    assert len(world.meet()) == 1


def test_other_nodes_have_ports_of_their_own(make: Callable[..., World]) -> None:
    world = make(HK, SG, unserved="de")
    assert world.vpn.ports == ["vpn", "vpn:sg"]
    assert world.gateway.unreachable_nodes == {"sg", "de"}
    world.send(udp(destination="9.9.9.9"))
    assert world.received()[0][ICMP].code == 1
    world.vpn.reconfigure(Peers((HK,), {}), {"sg"})
    assert world.vpn.ports == ["vpn"]
    world.send(udp())
    assert len(world.meet()) == 1


def test_a_reload_leaves_sessions_of_unchanged_peers_alone(make: Callable[..., World]) -> None:
    world = make()
    world.send(udp())
    world.meet()
    world.vpn.reconfigure(Peers((HK, replace(SG, endpoint=FAR)), {}), set())
    world.send(udp(1))
    assert [datagram[0] for _, datagram, _ in world.wire.sent] == [4]
    assert len(world.meet()) == 1


def test_what_the_socket_refuses_is_counted(make: Callable[..., World]) -> None:
    world = make()
    world.wire.refuses = 1
    world.send(udp())
    assert world.drops() == {Drop.PORT_FULL: 1}


def test_junk_is_counted_and_silent(make: Callable[..., World]) -> None:
    world = make()
    world.wire.deliver([Received(HOME, b"junk"), Received(HOME, b"\4\0\0\0" + bytes(28))])
    world.loop.turn(0)
    assert world.wire.sent == []
    assert world.drops() == {Drop.TUNNEL_MALFORMED: 1, Drop.TUNNEL_UNKNOWN_INDEX: 1}


def test_a_name_is_looked_up_at_start_again_in_vain_and_after_silence(make: Callable[..., World]) -> None:
    world = make(replace(HK, endpoint=None), names={"hk": ("node.example", 51820)})
    [(host, answer)] = world.asked
    assert host == "node.example"
    answer([])
    world.wait(RESOLVE_AGAIN_S + 1)
    [_, (_, answer)] = world.asked
    answer([FAR.address])
    world.send(udp())
    assert [endpoint for endpoint, _, _ in world.take()] == [FAR]
    world.wait(120)
    assert len(world.asked) == 3
    world.asked[2][1]([bytes((192, 0, 2, 77))])
    world.take()
    world.send(udp())
    assert [endpoint.address[3] for endpoint, _, _ in world.take()] == [77]


def test_a_handshake_in_vain_goes_on_with_the_next_address_of_a_name(make: Callable[..., World]) -> None:
    """In the order of the resolver, whatever the family; a name that changed whole begins anew."""
    six, four, new = bytes([0x20, 1, *bytes(14)]), FAR.address, bytes((192, 0, 2, 77))
    world = make(replace(HK, endpoint=None), names={"hk": ("node.example", 51820)})
    for number, (found, used) in enumerate([([six, four], six), ([six, four], four), ([four, six], six), ([new], new)]):
        world.asked[number][1](found)
        world.send(udp(number))
        world.wait(120)
        assert {endpoint.address for endpoint, _, _ in world.take()} == {used}
        assert len(world.asked) == number + 2


def test_a_peer_that_is_silent_for_20_s_is_looked_for_under_its_name(make: Callable[..., World]) -> None:
    world = make(replace(HK, endpoint=None), names={"hk": ("node.example", 51820)})
    moved = bytes((192, 0, 2, 77))
    world.asked[0][1]([FAR.address])
    world.send(udp())
    world.wait(18)
    assert len(world.asked) == 1
    world.wait(5)
    assert {endpoint.address for endpoint, _, _ in world.take()} == {FAR.address}
    world.asked[1][1]([moved])
    world.wait(6)
    assert {endpoint.address for endpoint, _, _ in world.take()} == {moved}


def test_answers_go_to_the_very_endpoint_that_the_latest_authentic_datagram_came_with(
    make: Callable[..., World],
) -> None:
    """Its owner may know more of it than it compares: the address of ours that it wrote to."""
    world = make()
    world.send(udp())
    world.meet()
    genuine, forged = Endpoint(*FAR), Endpoint(*FAR)
    world.wire.deliver(world.far.send("home", [bytes(udp())], world.now).datagrams, genuine)
    world.wire.deliver([Datagram(HOME, b"\4\0\0\0" + bytes(60))], forged)
    world.loop.turn(0)
    world.send(udp(1))
    assert world.wire.sent[-1].endpoint is genuine


def test_an_endpoint_of_ipv6_is_shown_in_brackets(make: Callable[..., World]) -> None:
    world = make(replace(HK, endpoint=Endpoint(bytes([0x20, 1, 0xD, 0xB8, *bytes(11), 1]), 51820)))
    [hk, _] = described(world.config, world.vpn.status(), world.now)["peers"]
    assert hk["endpoint"] == "[2001:db8::1]:51820"


def test_a_persistent_keepalive_goes_out_by_the_loop_s_timers(make: Callable[..., World]) -> None:
    world = make(replace(HK, persistent_keepalive_s=25))
    world.loop.turn(0)
    world.meet()
    world.wait(26)
    assert [len(datagram) for _, datagram, _ in world.take()] == [32]


def test_peers_are_told_as_the_interface_says(make: Callable[..., World]) -> None:
    world = make()
    world.send(udp())
    world.meet()
    world.now += 2 * SECOND_NS
    document = described(world.config, world.vpn.status(), world.now)
    assert document["version"] == 1
    hk, sg = document["peers"]
    wanted = {"name", "public_key", "endpoint", "via", "allowed_ips", "latest_handshake_s", "rx_bytes", "tx_bytes"}
    assert wanted <= set(hk)
    assert (hk["endpoint"], hk["latest_handshake_s"], hk["state"]) == ("192.0.2.2:51820", 2.0, "up")
    assert hk["allowed_ips"] == ["0.0.0.0/0"]
    assert (sg["endpoint"], sg["via"], sg["latest_handshake_s"], sg["rx_bytes"]) == (None, None, None, 0)


LAB = Network(0x0A140000, 16)
TAKING = replace(HK, accept=(LAB,))


def far_announces(world: World, *networks: Network) -> None:
    world.wire.deliver(world.far.set_networks(Networks(networks), world.now).datagrams)
    world.loop.turn(0)
    world.at_far()


def at_lab(world: World) -> str:
    """The fate of a packet of the host to a network behind the far end."""
    world.send(udp(destination="10.20.0.9"))
    errors = [(packet[ICMP].type, packet[ICMP].code) for packet in world.received() if ICMP in packet]
    return "unreachable" if errors == [(3, 0)] else IP(world.meet()[0]).dst


def test_what_a_peer_announces_is_routed_to_it_until_it_withdraws_it(
    make: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    world = make(TAKING)
    world.send(udp())
    world.meet()
    assert at_lab(world) == "unreachable"
    far_announces(world, LAB, Network(0x0A150000, 16))
    assert at_lab(world) == "10.20.0.9"
    told = route.get(Subject(world.gateway), {"ip": "10.20.0.9"}, world.now)
    assert (told["prefix"], told["target"], told["source"]) == ("10.20.0.0/16", "vpn:hk", "announced by hk")
    hk = described(world.config, world.vpn.status(), world.now)["peers"][0]
    assert (hk["announced"], hk["refused"]) == (
        ["10.20.0.0/16"],
        [{"prefix": "10.21.0.0/16", "reason": "not in accept"}],
    )
    assert world.drops()[Drop.TUNNEL_ANNOUNCE_REFUSED] == 1
    far_announces(world)
    assert at_lab(world) == "unreachable"
    assert [record.getMessage() for record in caplog.records if "announces" in record.getMessage()] == [
        "hk announces 10.21.0.0/16 (not in accept), 10.20.0.0/16 (accepted)",
        "hk announces nothing any more",
    ]


def test_a_reload_takes_back_what_it_does_not_accept_and_tells_what_we_announce(make: Callable[..., World]) -> None:
    world = make(TAKING)
    world.send(udp())
    world.meet()
    far_announces(world, LAB)
    ours = Network(0xC0A8C000, 24)
    world.vpn.reconfigure(Peers((HK,), {}, Networks((ours,))), set())
    assert world.gateway.announced == {}
    world.at_far()
    assert at_lab(world) == "unreachable"
    hk = described(world.config, world.vpn.status(), world.now)["peers"][0]
    assert hk["told"] == [{"prefix": "192.168.192.0/24", "answer": "configured"}]
    world.vpn.reconfigure(Peers((TAKING,), {}), set())
    assert at_lab(world) == "10.20.0.9"
    world.vpn.reconfigure(Peers((SG,), {}), {"hk"})
    assert world.gateway.announced == {}


def test_what_another_configuration_would_accept_is_known_before_it_counts(make: Callable[..., World]) -> None:
    world = make()
    world.send(udp())
    world.meet()
    far_announces(world, LAB)
    assert world.gateway.announced == {}
    assert world.vpn.announced_under(Peers((TAKING,), {})) == {"hk": [Prefix(*LAB[:2])]}
    assert world.gateway.announced == {}


def test_a_reload_tells_the_walk_of_announced_prefixes_once(make: Callable[..., World]) -> None:
    world = make(TAKING)
    world.send(udp())
    world.meet()
    far_announces(world, LAB)
    applied: list[Mapping[str, Sequence[Prefix]]] = []
    announce = world.gateway.announce

    def count(announced: Mapping[str, Sequence[Prefix]]) -> None:
        applied.append(announced)
        announce(announced)

    world.gateway.announce = count
    world.vpn.reconfigure(Peers((HK,), {}), set())  # it does not accept the prefix any more, which is an event as well
    assert applied == [{}]


def test_a_long_announcement_is_one_line_of_the_log(
    make: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    world = make(TAKING)
    world.send(udp())
    world.meet()
    far_announces(world, *(Network(0x0A140000 + number, 32) for number in range(200)))
    [line] = [record.getMessage() for record in caplog.records if "announces" in record.getMessage()]
    assert line.endswith("10.20.0.7/32 (accepted), 192 more")


BEHIND_HK = replace(SG, endpoint=None, via="hk")


def behind_a_relay(make: Callable[..., World]) -> World:
    """The node sg is reached through hk, which the far end is."""
    world = make(HK)
    world.vpn.reconfigure(Peers((HK, BEHIND_HK), {}, role=Role("home")), set())
    return world


def test_a_node_behind_a_relay_gets_its_packets_in_envelopes_to_the_relay(make: Callable[..., World]) -> None:
    world = behind_a_relay(make)
    assert world.gateway.unreachable_nodes == set()
    world.loop.turn(0)
    assert [(one.endpoint, kind_of(one.data)) for one in world.wire.sent] == [(FAR, MessageKind.INITIATION)]
    world.meet()
    world.send(udp(destination="9.9.9.9"))
    assert [(one.endpoint, kind_of(one.data)) for one in world.wire.sent] == [(FAR, MessageKind.RELAYED)]
    sg = next(status for status in world.vpn.status() if status.name == "sg")
    assert sg.endpoint == Endpoint(node_id("sg"), 0, "hk")
    assert sg.mtu_bytes == 1420 - 52
    assert world.gateway.mtus.known == {"vpn": 1420, "vpn:sg": 1420 - 52}
    world.take()
    long = IP(src=HOST, dst="9.9.9.9", flags="DF") / UDP(sport=5000, dport=53) / Raw(bytes(1400))
    world.send(long)
    [error] = world.received()
    assert (error[ICMP].type, error[ICMP].code, error[ICMP].nexthopmtu) == (3, 4, 1420 - 52)
    assert world.take() == []


def test_a_relay_that_does_not_answer_makes_its_nodes_unreachable(make: Callable[..., World]) -> None:
    world = behind_a_relay(make)
    world.wait(120)
    assert world.gateway.unreachable_nodes == {"hk", "sg"}
    world.take()
    world.send(udp(destination="9.9.9.9"))
    assert world.received()[-1][ICMP].code == 1
    world.meet()
    assert world.gateway.unreachable_nodes == set()


def test_a_reload_that_takes_the_relay_away_leaves_the_node_without_an_endpoint(make: Callable[..., World]) -> None:
    world = behind_a_relay(make)
    world.loop.turn(0)
    world.meet()
    world.vpn.reconfigure(Peers((HK, SG), {}, role=Role("home")), set())
    assert world.gateway.unreachable_nodes == {"sg"}
    world.send(udp())
    assert len(world.meet()) == 1


def test_a_peer_behind_a_relay_is_told_with_via_and_without_an_endpoint(make: Callable[..., World]) -> None:
    world = behind_a_relay(make)
    config = read(CONFIGURATION + 'via = "hk"\n', Path("gateway.toml"), "replay")
    sg = described(config, world.vpn.status(), world.now)["peers"][1]
    assert (sg["name"], sg["via"], sg["endpoint"], sg["state"]) == ("sg", "hk", None, "idle")


def test_pre_shared_keys_are_overwritten_once_the_tunnel_has_them(make: Callable[..., World]) -> None:
    psk = bytearray(b"p" * 32)
    make(replace(HK, psk=psk))
    assert psk == bytes(32)


def test_a_key_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=\n")
    assert read_key(tmp_path / "key") == bytes(range(1, 33))


def test_stamps_survive_and_what_cannot_be_read_or_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stamps = {HK.public_key: Stamps(b"r" * 12, b"s" * 12)}
    file = StampFile(tmp_path / "made" / "tunnel.json")
    assert file.read() == {}
    file.write(stamps)
    assert file.read() == stamps
    for damaged in ('{"x": 1}', "[" * 100_000, "", "[]"):
        (tmp_path / "made" / "tunnel.json").write_text(damaged)
        assert file.read() == {}
    (tmp_path / "plain").write_text("")
    hopeless = StampFile(tmp_path / "plain" / "tunnel.json")
    hopeless.write(stamps)
    hopeless.write(stamps)
    assert len([record for record in caplog.records if "until it can be written" in record.message]) == 1


def test_while_a_node_is_silent_its_fallback_takes_new_flows_and_it_is_called_still(make: Callable[..., World]) -> None:
    far_end = Endpoint(bytes((192, 0, 2, 3)), 51820)
    world = make(HK, replace(SG, endpoint=far_end, allowed_ips=(Network(0, 0),)))
    text = CONFIGURATION.replace("[peer.hk]\n", '[peer.hk]\nfallback = "sg"\n').replace("9.9.9.0/24", "0.0.0.0/0")
    config = read(text, Path("gateway.toml"), "replay")
    world.gateway.reconfigure(gateway_settings(config), routes_from(config), world.now)
    world.send(udp())
    world.wait(120)
    assert world.gateway.unreachable_nodes == {"hk"}
    assert [packet[ICMP].code for packet in world.received()] == [1], "it waited for hk"
    world.take()
    world.send(udp())
    assert {sent[0] for sent in world.wire.sent} == {FAR, far_end}, "sg is asked, and hk again"
    assert world.received() == []
    world.wire.sent = [sent for sent in world.wire.sent if sent[0] == FAR]
    world.at_far()
    assert world.gateway.unreachable_nodes == set()
    world.take()
    world.send(udp(1))
    assert {sent[0] for sent in world.take()} == {FAR}, "a new flow is hk's"
    assert len(world.gateway.nodes) == 1, "the first one stays"


def test_a_peer_of_an_earlier_run_is_called_when_its_name_is_found(make: Callable[..., World]) -> None:
    known = {public_key(key): Stamps(NEVER, b"\x40" + bytes(11)) for key in (FAR_KEY, OTHER_KEY)}
    named = replace(SG, endpoint=None)
    world = make(HK, named, names={"sg": ("node.example", 51820)}, stamps=known)
    world.vpn.begin()
    assert [(endpoint, len(datagram)) for endpoint, datagram, _ in world.take()] == [(FAR, 148)]
    [(_, answer)] = world.asked
    there = Endpoint(bytes((192, 0, 2, 3)), 51820)
    answer([there.address])
    assert [(endpoint, len(datagram)) for endpoint, datagram, _ in world.take()] == [(there, 148)]


def test_a_start_that_is_no_restart_calls_nobody(make: Callable[..., World]) -> None:
    world = make()
    world.wait(30)
    assert world.take() == []
