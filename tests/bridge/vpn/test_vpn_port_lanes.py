"""The port vpn with lanes: the real walk, loop, tunnel and sockets on loopback, under a virtual clock."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from lane_world import KEYS, LOOPBACK
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw

from bridge.config.into_routes import routes_from
from bridge.config.into_tunnel import Peers
from bridge.config.into_walk import gateway_settings
from bridge.config.load import read
from bridge.daemon.implementation import open_lanes
from bridge.loop.loop import Loop
from bridge.ports.memory import MemoryPort
from bridge.ports.udp.datagrams import DatagramSocket
from bridge.vpn.ciphers import open_cores
from bridge.vpn.lanes import PeerLanes
from bridge.vpn.port import VpnPort
from bridge.walk.gateway import Gateway
from tests.compiled import compiled
from tunnel.effects import Datagram, Endpoint, Network, PeerConfig
from tunnel.endpoint import Tunnel
from tunnel.primitives import public_key
from wire.drop import Drop
from wire.gso import GSO_TCPV4, GsoHeader
from wire.units import SECOND_NS

CONFIGURATION = """
[tun0]
address = "192.168.192.211/24"
[vpn]
address = "192.168.192.210"
node = "hk"
[peer.hk]
allowed_ips = ["0.0.0.0/0"]
[peer.sg]
allowed_ips = ["9.9.9.0/24"]
"""
HOST, REMOTE = "192.168.192.211", "8.8.8.8"


class World:
    """Ours, whose packets pass lanes, and a far end that is only a tunnel with a socket."""

    def __init__(self, stack: ExitStack) -> None:
        compiled("bridge.ports.udp.lanes", "Lanes")
        self.now = 1000 * SECOND_NS
        config = read(CONFIGURATION, Path("gateway.toml"), "replay")
        self.gateway = Gateway(gateway_settings(config), routes_from(config), random.Random(1))
        self.loop = Loop(self.gateway, clock=lambda: self.now)
        self.tun0 = MemoryPort("tun0", "tun")
        self.loop.attach(self.tun0)
        self.near_socket, self.far_socket = DatagramSocket(0), DatagramSocket(0)
        cores = open_cores(1, {})
        lanes = open_lanes(cores)
        assert lanes is not None
        self.hk = PeerConfig("hk", public_key(KEYS["far"]), (Network(0, 0),), self.at(self.far_socket))
        self.far = self.tunnel("far", PeerConfig("home", public_key(KEYS["near"]), (Network(0, 0),)))
        self.vpn = VpnPort(
            self.loop,
            self.gateway,
            self.tunnel("near", self.hk),
            self.near_socket,
            Peers((self.hk,), {}),
            keep=lambda stamps: None,
            resolve=lambda host, answer: None,
            unserved=set(),
            lanes=PeerLanes(lanes, self.near_socket, self.gateway.fast.number, cores.worked),
        )
        for closing in (self.near_socket, self.far_socket, cores, self.tun0, self.loop, self.vpn):
            stack.callback(closing.close)

    def tunnel(self, name: str, peer: PeerConfig) -> Tunnel:
        rng = random.Random(name)
        return Tunnel(KEYS[name], [peer], self.now, wall_ns=lambda: 10**18 + self.now, random_bytes=rng.randbytes)

    def at(self, opened: DatagramSocket) -> Endpoint:
        return Endpoint(LOOPBACK, opened.port)

    def send(self, *packets: IP, gso: GsoHeader | None = None) -> None:
        self.tun0.deliver(*map(bytes, packets), gso=gso)
        self.loop.turn(0)

    def at_far(self) -> list[bytes]:
        """The far end takes what came, until neither has anything to say."""
        packets: list[bytes] = []
        while burst := self.far_socket.read_burst(1000):
            effects = self.far.receive(burst, self.now)
            packets += [packet for _, packet in effects.packets]
            self.answer(effects.datagrams)
        return packets

    def answer(self, datagrams: list[Datagram]) -> None:
        self.far_socket.send_burst([Datagram(self.at(self.near_socket), data, tos) for _, data, tos in datagrams])
        self.loop.turn(0)

    def meet(self) -> None:
        self.send(udp())
        assert len(self.at_far()) == 1
        self.answer(self.far.send("home", [bytes(udp(source=REMOTE, destination=HOST))], self.now).datagrams)
        self.tun0.sent.clear()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        yield World(stack)


def udp(number: int = 0, *, source: str = HOST, destination: str = REMOTE) -> IP:
    return IP(src=source, dst=destination, ttl=64) / UDP(sport=5000 + number, dport=53) / Raw(b"x" * 40)


def segments(count: int) -> list[bytes]:
    return [
        bytes(
            IP(src=REMOTE, dst=HOST, id=at, flags="DF", ttl=60)
            / TCP(sport=443, dport=5000, seq=at * 1000, flags="A")
            / Raw(bytes([at]) * 1000)
        )
        for at in range(count)
    ]


def test_once_both_have_met_packets_pass_by_lanes_both_ways(world: World) -> None:
    assert world.vpn.lanes == 0
    world.meet()
    assert world.vpn.lanes == 1
    before = world.vpn.status()[0]
    payload = bytes(range(250)) * 80
    whole = IP(src=HOST, dst=REMOTE, ttl=64, flags="DF") / TCP(sport=5000, dport=443, flags="PA") / Raw(payload)
    world.send(udp(1), udp(2))
    world.send(whole, gso=GsoHeader(True, GSO_TCPV4, 40, 1000, 20, 16))
    got = [IP(packet) for packet in world.at_far()]
    assert [packet.ttl for packet in got] == [63] * 22
    assert b"".join(bytes(packet[TCP].payload) for packet in got[2:]) == payload
    world.answer(world.far.send("home", segments(30), world.now).datagrams)
    [(frame, claims)] = world.tun0.sent
    assert (len(frame), claims and claims.gso_bytes) == (40 + 30_000, 1000)
    after = world.vpn.status()[0]
    assert after.tx_bytes - before.tx_bytes == 2 * (80 + 32) + 20 * (1040 + 32)
    assert after.rx_bytes - before.rx_bytes == 30 * (1040 + 32)
    assert not any(world.gateway.counters.drops.values())


def test_data_that_came_by_a_lane_is_acknowledged_after_ten_seconds(world: World) -> None:
    world.meet()
    world.send(udp())
    world.at_far()
    world.answer(world.far.send("home", segments(3), world.now).datagrams)
    world.now += 10 * SECOND_NS
    world.loop.turn(0)
    [keepalive] = world.far_socket.read_burst(10)
    assert len(keepalive.data) == 32


def test_while_somebody_watches_all_packets_are_seen(world: World) -> None:
    world.meet()
    seen: list[tuple[str, int]] = []

    def watcher(_port: str, way: str, frame: bytes | bytearray, _offload: GsoHeader | None) -> None:
        seen.append((way, len(frame)))

    world.loop.watch("vpn", watcher)
    world.send(udp(1))
    assert len(world.at_far()) == 1
    world.answer(world.far.send("home", segments(3), world.now).datagrams)
    assert seen == [("out", 68), ("in", 3040)]


def test_packets_that_wait_are_not_overtaken(world: World) -> None:
    """Packets in the queue of a peer leave before any that a lane may send."""
    world.meet()
    world.vpn._queues["hk"] = [bytes(udp(1))]
    world.send(udp(2), udp(3))
    assert [IP(packet).sport for packet in world.at_far()] == [5001, 5002, 5003]


def test_a_peer_that_goes_in_a_reload_takes_its_lane_along_and_a_new_name_keeps_it(world: World) -> None:
    world.meet()
    world.vpn.reconfigure(Peers((world.hk,), {}), set())
    assert world.vpn.lanes == 1
    renamed = PeerConfig("sg", world.hk.public_key, (Network(0, 0),), world.hk.endpoint)
    world.vpn.reconfigure(Peers((renamed,), {}), set())
    assert world.vpn.lanes == 1
    world.send(udp(4))
    assert world.at_far() == [], "nothing leads to hk any more"
    world.send(udp(5, destination="9.9.9.9"))
    assert [IP(packet).sport for packet in world.at_far()] == [5005]
    world.vpn.reconfigure(Peers((), {}), set())
    assert world.vpn.lanes == 0
    world.send(udp(6, destination="9.9.9.9"))
    assert world.at_far() == []


def test_a_far_end_that_calls_anew_gets_lanes_under_its_new_keys(world: World) -> None:
    world.meet()
    for _ in range(3):
        world.now += 6 * SECOND_NS
        world.answer(world.far.call("home", world.now).datagrams)
        world.at_far()
        world.answer(world.far.send("home", segments(2), world.now).datagrams)
        world.send(udp(1))
        assert len(world.at_far()) == 1
        assert world.vpn.lanes == 1
    assert len(world.tun0.sent) == 3


def test_forgeries_are_counted_and_nothing_else_happens(world: World) -> None:
    world.meet()
    sealed = world.far.send("home", segments(5), world.now).datagrams
    before = world.vpn.status()
    world.answer([datagram._replace(data=datagram.data[:-1] + bytes([datagram.data[-1] ^ 1])) for datagram in sealed])
    assert world.gateway.counters.drops[Drop.TUNNEL_AUTHENTICATION] == 5
    assert (world.tun0.sent, world.vpn.status()) == ([], before)
    world.answer(sealed + sealed)
    assert world.gateway.counters.drops[Drop.TUNNEL_REPLAY] == 5


def test_where_it_is_closed_nothing_leaves(world: World) -> None:
    world.meet()
    lanes = world.vpn._lanes
    assert lanes is not None
    number = lanes.open["hk"]
    world.vpn.close()
    assert not lanes.lanes.write(number, bytes(udp()), None, world.now)
