"""Lanes against the tunnel's own way: for the same datagrams the same packets, drops, windows and timers.

The file has more than 600 lines, because every case plays on the same pair of ends, which is half of it.
"""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lane_world import MTU_BYTES, VPN, LaneWorld, cut, left

from bridge.ports.udp.datagrams import DatagramSocket
from bridge.vpn.lanes import MOST_SESSIONS, PeerLanes
from tunnel.constants import REJECT_AFTER_NS
from tunnel.control import ControlKind, ControlMessage
from tunnel.effects import Datagram, Endpoint, Happening, Network, PeerConfig, Received
from tunnel.primitives import public_key
from wire import ipv4
from wire.checksum import checksum, pseudo_header_sum
from wire.drop import Drop
from wire.gso import GSO_TCPV4, GsoHeader, segment
from wire.units import SECOND_NS, address_int

SERVER, HOST = map(address_int, ("8.8.8.8", "192.168.192.211"))


@pytest.fixture
def make() -> Iterator[Callable[..., LaneWorld]]:
    with ExitStack() as stack:
        yield lambda *allowed: LaneWorld(stack, allowed or (Network(0, 0),))


@contextmanager
def world() -> Iterator[LaneWorld]:
    with ExitStack() as stack:
        yield LaneWorld(stack)


def tcp(
    number: int = 0, size: int = 1200, *, flags: int = 0x10, port: int = 443, tos: int = 0, source: int = SERVER
) -> bytes:
    """The segment of that number of one flow."""
    body = bytearray(port.to_bytes(2, "big") + b"\x13\x88" + (number * size).to_bytes(4, "big") + bytes(4))
    body += bytes([0x50, flags, 1, 0, 0, 0, 0, 0]) + random.Random(number).randbytes(size)
    body[16:18] = checksum(body, pseudo_header_sum(source, HOST, ipv4.TCP, len(body))).to_bytes(2, "big")
    head = bytearray(ipv4.header(source, HOST, ipv4.TCP, len(body), ttl=60, identification=number, flags=0x4000))
    head[1] = tos
    head[10:12] = bytes(2)
    head[10:12] = checksum(head).to_bytes(2, "big")
    return bytes(head + body)


def udp(size: int = 40, port: int = 53, source: int = SERVER) -> bytes:
    body = bytearray(port.to_bytes(2, "big") + b"\x13\x88" + (8 + size).to_bytes(2, "big") + bytes(2 + size))
    body[6:8] = checksum(body, pseudo_header_sum(source, HOST, ipv4.UDP, len(body))).to_bytes(2, "big")
    return ipv4.header(source, HOST, ipv4.UDP, len(body), ttl=60) + bytes(body)


def super_frame(count: int = 47, size: int = 1360, *, flags: int = 0x18, tos: int = 0) -> tuple[bytes, GsoHeader]:
    """A super-frame as a host's kernel hands it over."""
    packet = bytearray(tcp(1, count * size - 100, flags=flags, tos=tos, source=HOST))
    packet[36:38] = pseudo_header_sum(HOST, HOST, ipv4.TCP, len(packet) - 20).to_bytes(2, "big")
    return bytes(packet), GsoHeader(True, GSO_TCPV4, 40, size, 20, 16)


# Packets come


def test_what_the_far_end_seals_is_opened_merged_and_walked(make: Callable[..., LaneWorld]) -> None:
    world = make()
    packets = [tcp(number) for number in range(100)] + [udp()]
    world.carry(world.seal(*packets))
    assert [len(frame) for _, frame, _, _ in world.last.opened] == [40 + 54 * 1200, 40 + 46 * 1200, 68]
    assert not world.last.strange
    assert world.packets[-101:] == packets
    world.agree()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 1 << 32),
    bursts=st.lists(
        st.lists(
            st.tuples(
                st.sampled_from(["next"] * 12 + ["dup", "late", "cut", "flip", "index", "short", "junk", "gone"]),
                st.integers(0, 1 << 16),
            ),
            min_size=1,
            max_size=40,
        ),
        min_size=1,
        max_size=6,
    ),
    sizes=st.lists(st.sampled_from([0, 1, 40, 1200, 1200, 1200, 1380]), min_size=1, max_size=8),
)
def test_whatever_the_wire_does_both_come_to_the_same(
    seed: int, bursts: list[list[tuple[str, int]]], sizes: list[int]
) -> None:
    rng = random.Random(seed)
    with world() as here:
        sent: list[Datagram] = []
        held: list[Datagram] = []
        number = 0
        for burst in bursts:
            datagrams: list[Datagram] = []
            for what, value in burst:
                size = sizes[number % len(sizes)]
                number += 1
                packet = rng.choice([udp(size), tcp(number, size or 8), bytes([0x60]) * 50])
                [fresh] = here.seal(packet)
                sent.append(fresh)
                datagrams += treated(what, value, fresh, sent, held, rng)
                if what == "late":
                    held.append(fresh)
            datagrams += held if rng.random() < 0.5 else []
            if datagrams:
                here.carry([datagram for datagram in datagrams if datagram.data])
        here.agree()


def treated(
    what: str, value: int, fresh: Datagram, sent: list[Datagram], held: list[Datagram], rng: random.Random
) -> list[Datagram]:
    raw = fresh.data
    if what in ("late", "gone"):
        return []
    if what == "dup":
        return [fresh, sent[value % len(sent)]]
    if what == "cut":
        return [fresh._replace(data=raw[: value % len(raw)])]
    if what == "flip":
        at = value % len(raw)
        return [fresh._replace(data=raw[:at] + bytes([raw[at] ^ 1 + value % 255]) + raw[at + 1 :])]
    if what == "index":
        return [fresh._replace(data=raw[:4] + rng.randbytes(4) + raw[8:])]
    if what == "short":
        return [fresh._replace(data=rng.randbytes(value % 40))]
    if what == "junk":
        return [fresh._replace(data=bytes([1 + value % 6, 0, 0, 0]) + rng.randbytes(value % 200))]
    return [fresh]


def test_a_replayed_burst_gives_nothing_and_moves_nothing(make: Callable[..., LaneWorld]) -> None:
    world = make()
    burst = world.seal(*(tcp(number) for number in range(60)))
    world.carry(burst)
    before = world.session.window.state()
    world.carry(burst)
    assert world.drops[Drop.TUNNEL_REPLAY] == 60
    assert world.session.window.state() == before
    world.carry([burst[0], *world.seal(udp()), *burst[:5]])
    world.agree()


def test_forged_tags_leave_no_trace(make: Callable[..., LaneWorld]) -> None:
    world = make()
    before = world.session.window.state()
    forged = [
        datagram._replace(data=datagram.data[:-1] + bytes([datagram.data[-1] ^ 1]))
        for datagram in world.seal(*(tcp(number) for number in range(50)))
    ]
    world.carry(forged)
    assert world.drops[Drop.TUNNEL_AUTHENTICATION] == 50
    assert world.session.window.state() == before
    assert world.last.received == []
    world.agree()


def test_a_stranger_with_our_index_moves_nobody_and_what_follows_is_taken(make: Callable[..., LaneWorld]) -> None:
    world = make()
    [packet] = world.seal(udp())
    world.carry([packet._replace(data=packet.data[:-1] + b"\0")], by=world.third)
    assert world.near.status(world.now)[0].endpoint == world.away
    world.carry([packet])
    assert not world.last.strange
    world.agree()


def test_a_far_end_that_moves_is_answered_there_and_heard_there(make: Callable[..., LaneWorld]) -> None:
    world = make()
    world.carry(world.seal(*(tcp(number) for number in range(10))), by=world.third)
    elsewhere = Endpoint(world.away.address, world.third.port)
    assert world.near.status(world.now)[0].endpoint == elsewhere
    world.carry(world.seal(*(tcp(number) for number in range(10, 20))), by=world.third)
    assert not world.last.strange
    assert world.lanes.write(VPN, udp(), None, world.now)
    world.lanes.send()
    assert [received.source.port for received in read(world.third)] == [world.home.port]
    world.near.lane_sealed("far", world.lanes.sent()[0][2], world.now)
    world.twin.send("far", [udp()], world.now)
    world.agree()


def test_a_stranger_with_our_index_cannot_turn_a_burst_away_from_the_flow_table(
    make: Callable[..., LaneWorld],
) -> None:
    """A stranger who has seen one datagram knows the index: a forgery of his costs an opening in vain, and no other
    datagram its lane."""
    world = make()
    with ExitStack() as stack:
        device = world.repeat(stack)
        world.learn((SERVER, 443, HOST, 5000), ipv4.TCP)
        sealed = world.seal(*(tcp(number) for number in range(20)))
        world.carry(sealed[:1])
        made_up = sealed[0]._replace(data=sealed[0].data[:8] + (1 << 40).to_bytes(8, "little") + sealed[0].data[16:])
        burst = [(world.third, sealed[0]), (world.third, made_up), *((world.far_socket, one) for one in sealed[1:])]
        world.carry_from(burst)
        assert len(cut(left(device))) == 20
        assert not world.last.strange
        assert not world.last.opened
        assert world.drops == {Drop.TUNNEL_REPLAY: 1, Drop.TUNNEL_AUTHENTICATION: 1}
        assert world.near.status(world.now)[0].endpoint == world.away


@pytest.mark.parametrize("seed", range(8))
def test_a_far_end_that_is_here_and_there_in_one_burst_is_where_the_twin_finds_it(
    make: Callable[..., LaneWorld], seed: int
) -> None:
    world, rng = make(), random.Random(seed)
    probe = ControlMessage(ControlKind.PROBE, 7, bytes(100)).packed()
    for burst in range(5):
        packets = [tcp(100 * burst + number) for number in range(rng.randrange(1, 40))]
        packets[rng.randrange(len(packets))] = probe
        sealed = world.seal(*packets)
        rng.shuffle(sealed)
        world.carry_from([(rng.choice((world.far_socket, world.third)), one) for one in sealed])
        assert not world.last.strange
        assert world.near.status(world.now)[0].endpoint == world.twin.status(world.now)[0].endpoint
        world.agree()


def test_more_datagrams_than_are_looked_at_together_stay_in_order(make: Callable[..., LaneWorld]) -> None:
    """On loopback and between virtual machines one piece may hold more of them than the kernel merges by itself."""
    world = make()
    packets = [udp(2, port=1 + number) for number in range(1400)]
    sealed = [datagram.data for datagram in world.seal(*packets)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:  # elsewhere, but the keys are right
        while sealed:
            for together in (128, 64):  # 64 before Linux 6.9
                size = (socket.IPPROTO_UDP, 103, len(sealed[0]).to_bytes(2, sys.byteorder))
                with suppress(OSError):
                    sender.sendmsg([b"".join(sealed[:together])], [size], 0, ("127.0.0.1", world.home.port))
                    del sealed[:together]
                    break
    while world.near_socket.ready():
        world.take()
    assert world.packets[-1400:] == packets


def test_a_control_message_is_taken_in_its_place(make: Callable[..., LaneWorld]) -> None:
    """It may decide about what follows: nothing behind it is dealt with before it."""
    world = make(Network(SERVER, 32))
    other = address_int("10.9.9.9")
    probe = ControlMessage(ControlKind.PROBE, 7, bytes(100)).packed()
    packets = [tcp(0), tcp(1), probe, tcp(2), tcp(3), udp(source=other), tcp(4)]
    world.carry(world.seal(*packets))
    assert [plain[0] >> 4 for _, plain, _, _ in world.last.opened] == [4, 0, 4, 4]
    assert world.drops == {Drop.TUNNEL_INNER_SOURCE: 1}
    assert len(world.answers) == len(world.twin_answers)
    world.agree()


@pytest.mark.parametrize("outer", range(4))
@pytest.mark.parametrize("inner", range(4))
def test_congestion_marks_pass_or_end_a_packet_as_in_the_twin(
    make: Callable[..., LaneWorld], outer: int, inner: int
) -> None:
    world = make()
    sealed = world.seal(*(tcp(number, tos=inner) for number in range(6)))
    world.carry([datagram._replace(tos=outer if at in (2, 3) else inner) for at, datagram in enumerate(sealed)])
    assert not world.last.strange
    world.agree()


def test_an_inner_source_that_is_not_the_far_ends_is_counted_packet_by_packet(make: Callable[..., LaneWorld]) -> None:
    world = make(Network(address_int("10.0.0.0"), 8))
    world.carry(world.seal(*(tcp(number) for number in range(30)), udp(), b"\x45" + bytes(10), bytes([0x65]) * 60))
    assert world.drops == {Drop.TUNNEL_INNER_SOURCE: 31, Drop.TUNNEL_INNER_MALFORMED: 2}
    world.agree()


def test_a_session_that_is_over_opens_nothing(make: Callable[..., LaneWorld]) -> None:
    world = make()
    sealed = world.seal(udp())
    world.now += REJECT_AFTER_NS
    world.carry(sealed)
    assert len(world.last.strange) == 1
    assert world.drops == {Drop.TUNNEL_EXPIRED: 1}
    assert not world.lanes.write(VPN, udp(), None, world.now)
    world.agree()


def test_new_keys_take_over_and_late_packets_under_the_old_ones_still_come(make: Callable[..., LaneWorld]) -> None:
    world = make()
    before = world.session
    late = world.seal(*(tcp(number) for number in range(5)))
    world.now += 130 * SECOND_NS
    world.carry(world.far.call("near", world.now).datagrams)
    world.carry(world.far.receive([Received(world.answers[-1], world.home)], world.now).datagrams)
    assert world.session is not before
    world.carry(late)
    assert not world.last.strange
    world.carry(world.seal(*(tcp(number) for number in range(5, 9))))
    assert not world.last.strange
    assert world.lanes.write(VPN, udp(), None, world.now)
    world.lanes.send()
    assert (before.counter, world.session.counter) == (0, 1)
    world.near.lane_sealed("far", world.lanes.sent()[0][2], world.now)
    world.twin.send("far", [udp()], world.now)
    world.agree()


# What the flow table knows


def test_known_flows_reach_the_device_merged_and_others_the_walk(make: Callable[..., LaneWorld]) -> None:
    world = make()
    with ExitStack() as stack:
        device = world.repeat(stack)
        world.learn((SERVER, 443, HOST, 5000), ipv4.TCP)
        known = [tcp(number) for number in range(80)]
        world.carry(world.seal(*known[:40], udp(), *known[40:]))
        frames = left(device)
        assert [len(frame) for frame, _ in frames] == [40 + 54 * 1200, 40 + 26 * 1200]
        lowered = [packet[8] for packet in cut(frames)]
        assert lowered == [59] * 80
        assert [packet[40:] for packet in cut(frames)] == [packet[40:] for packet in known]
        assert [plain for _, plain, _, _ in world.last.opened] == [udp()]
        assert world.session.window.state() == world.session_of(world.twin).window.state()


def test_a_segment_that_ends_a_connection_lets_nothing_overtake_it(make: Callable[..., LaneWorld]) -> None:
    world = make()
    with ExitStack() as stack:
        device = world.repeat(stack)
        world.learn((SERVER, 443, HOST, 5000), ipv4.TCP)
        packets = [tcp(0), tcp(1), tcp(2, flags=0x11), tcp(3), tcp(4)]
        world.carry(world.seal(*packets))
        assert [len(frame) for frame, _ in left(device)] == [40 + 2400]
        assert cut([(plain, claims) for _, plain, claims, _ in world.last.opened]) == packets[2:]
        world.carry(world.seal(tcp(5)))
        assert len(left(device)) == 1, "the next burst is repeated again"


def test_what_waits_behind_a_packet_for_python_is_read_after_it(make: Callable[..., LaneWorld]) -> None:
    """A call ends with the burst in which something had to be judged."""
    world = make()
    with ExitStack() as stack:
        device = world.repeat(stack)
        world.learn((SERVER, 443, HOST, 5000), ipv4.TCP)
        bursts = [[tcp(0), tcp(1, flags=0x11)], *([tcp(number)] for number in range(2, 100))]
        for burst in bursts:
            sealed = [Datagram(world.home, data) for _, data, _ in world.seal(*burst)]
            world.far_socket.send_burst(sealed)
        world.take()
        assert not world.last.strange
        walked = cut([(plain, claims) for _, plain, claims, _ in world.last.opened])
        assert walked[0] == bursts[0][1]
        assert len(left(device)) == 1
        rest = 0
        while len(walked) + rest < 99:
            world.take()
            frames = cut(left(device))
            assert frames
            rest += len(frames)
        assert (world.last.opened, rest > 0) == ([], True)


def test_padding_is_cut_before_a_packet_is_repeated(make: Callable[..., LaneWorld]) -> None:
    world = make()
    with ExitStack() as stack:
        device = world.repeat(stack)
        world.learn((SERVER, 53, HOST, 5000), ipv4.UDP)
        world.carry(world.seal(*(udp(size) for size in range(33))))
        assert [len(frame) for frame, _ in left(device)] == [28 + size for size in range(33)]


def test_what_crosses_from_peer_to_peer_goes_from_lane_to_lane(make: Callable[..., LaneWorld]) -> None:
    world = make()
    with ExitStack() as stack:
        world.repeat(stack)
        world.learn((SERVER, 443, HOST, 5000), ipv4.TCP, out_port=VPN)
        packets = [tcp(number) for number in range(20)]
        world.carry(world.seal(*packets))
        effects = world.far.receive(read(world.far_socket), world.now)
        assert [packet[20:] for _, packet in effects.packets] == [packet[20:] for packet in packets]
        assert world.lanes.sent()[0][:2] == (VPN, 20)


def test_more_than_the_arena_holds_crosses_from_peer_to_peer_in_one_burst(make: Callable[..., LaneWorld]) -> None:
    """A full part leaves while the rest of the burst is yet to be looked at: forgeries in it stay forgeries."""
    world = make()
    with ExitStack() as stack:
        world.repeat(stack)
        world.learn((SERVER, 443, HOST, 5000), ipv4.TCP, out_port=VPN)
        packets = [tcp(number, 1360) for number in range(140)]
        sealed = world.seal(*packets, udp())
        sealed[-1] = sealed[-1]._replace(data=sealed[-1].data[:-1] + bytes([sealed[-1].data[-1] ^ 1]))
        world.carry(sealed)
        assert world.drops == {Drop.TUNNEL_AUTHENTICATION: 1}
        assert world.lanes.sent()[0][:2] == (VPN, 140)
        effects = world.far.receive(read(world.far_socket), world.now)
        assert [packet[20:] for _, packet in effects.packets] == [packet[20:] for packet in packets]


def test_an_outdated_decision_is_not_repeated(make: Callable[..., LaneWorld]) -> None:
    world = make()
    with ExitStack() as stack:
        device = world.repeat(stack)
        world.learn((SERVER, 443, HOST, 5000), ipv4.TCP)
        world.table.outdate()
        world.carry(world.seal(tcp(0), tcp(1)))
        assert left(device) == []
        assert len(world.last.opened) == 1


# Packets leave


def read(opened: DatagramSocket) -> list[Received]:
    received: list[Received] = []
    while burst := opened.read_burst(1 << 10):
        received += burst
    return received


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("super"), st.integers(1, 47), st.sampled_from([100, 1000, 1360, 1380])),
            st.tuples(st.just("udp"), st.integers(0, 1392), st.just(0)),
            st.tuples(st.just("marked"), st.integers(1, 47), st.just(1360)),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_what_leaves_is_what_the_tunnel_would_have_sent(frames: list[tuple[str, int, int]]) -> None:
    with world() as here:
        packets: list[bytes] = []
        for what, number, size in frames:
            if what == "udp":
                frame, gso = udp(number), None
                packets.append(frame)
            else:
                frame, gso = super_frame(number, size, tos=2 if what == "marked" else 0)
                packets += [bytes(piece) for piece in segment(bytearray(frame), gso)]
            assert here.lanes.write(VPN, frame, gso, here.now)
        [(peer, size_bytes)] = here.peer_lanes.send()
        here.near.lane_sealed(peer, size_bytes, here.now)
        expected = here.twin.send("far", packets, here.now).datagrams
        received = read(here.far_socket)
        assert [one.data for one in received] == [datagram.data for datagram in expected]
        assert [one.ecn for one in received] == [datagram.tos for datagram in expected]
        here.agree()


def test_both_ways_draw_from_one_counter(make: Callable[..., LaneWorld]) -> None:
    world = make()
    counters = []
    for number in range(30):
        frame, gso = super_frame(5)
        if number % 3:
            assert world.lanes.write(VPN, frame, gso, world.now)
            world.peer_lanes.send()
        else:
            world.near_socket.send_burst(world.near.send("far", [udp()] * 4, world.now).datagrams)
        counters += [int.from_bytes(one.data[8:16], "little") for one in read(world.far_socket)]
    assert counters == list(range(len(counters)))
    assert world.session.counter == len(counters)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.sampled_from(["lane", "lane", "push", "python", "queued", "rekey", "confirm", "renew", "reload", "erase"]),
        max_size=40,
    )
)
def test_no_nonce_is_used_twice_whatever_happens_between_bursts(steps: list[str]) -> None:
    """A nonce is a key, known by the index of whoever has the other half, and a counter."""
    with world() as here:
        left_by_python: list[Datagram] = []
        config = PeerConfig("far", public_key(bytes([2]) * 32), (Network(0, 0),), here.away)
        handshakes: list[Datagram] = []
        for step in steps:
            frame, gso = super_frame(3)
            if step in ("lane", "push"):
                here.lanes.write(VPN, frame, gso, here.now)
            if step == "lane":
                here.peer_lanes.send()
            elif step == "python":
                here.lanes.send()
                left_by_python += here.near.send("far", [udp()] * 3, here.now).datagrams
            elif step == "queued":  # sealed while something is still in the lane
                left_by_python += here.near.send("far", [udp()], here.now).datagrams
            elif step == "rekey":
                here.now += 6 * SECOND_NS
                handshakes = here.far.call("near", here.now).datagrams
                here.near_socket.read_burst(1)
                effects = here.near.receive([Received(data, here.away) for _, data, _ in handshakes], here.now)
                here.far.receive([Received(data, here.home) for _, data, _ in effects.datagrams], here.now)
            elif step == "confirm":
                confirming = here.far.send("near", [udp()], here.now).datagrams
                effects = here.near.receive([Received(data, here.away) for _, data, _ in confirming], here.now)
                left_by_python += effects.datagrams
            elif step == "renew":
                here.renew()
            elif step == "reload":
                here.near.set_peers([config], here.now)
            elif step == "erase":
                here.near._by_name["far"].erase()
        here.peer_lanes.send()
        sealed = [one.data for one in read(here.far_socket)] + [data for _, data, _ in left_by_python]
        nonces = [data[4:16] for data in sealed if data[:4] == b"\4\0\0\0"]
        assert len(set(nonces)) == len(nonces)


def test_a_packet_too_long_for_the_path_is_pythons(make: Callable[..., LaneWorld]) -> None:
    world = make()
    assert not world.lanes.write(VPN, udp(MTU_BYTES - 27), None, world.now)
    assert not world.lanes.write(VPN, *super_frame(3, MTU_BYTES - 39), world.now)
    assert world.lanes.write(VPN, udp(MTU_BYTES - 28), None, world.now)
    assert not world.lanes.write(VPN, b"", None, world.now)
    assert not world.lanes.write(VPN, bytes([0x60]) * 40, None, world.now)
    assert not world.lanes.write(VPN + 1, udp(), None, world.now)
    assert not world.lanes.write(40_000, udp(), None, world.now)
    frame, gso = super_frame(3)
    assert not world.lanes.write(VPN, frame, gso._replace(checksum_start=len(frame)), world.now)


def test_keys_that_were_wiped_seal_and_open_nothing(make: Callable[..., LaneWorld]) -> None:
    """Keys may be wiped at any time, also between a push and its sending."""
    world = make()
    sealed = world.seal(udp())
    assert world.lanes.write(VPN, udp(), None, world.now)
    world.near._by_name["far"].erase()
    world.twin._by_name["far"].erase()
    assert world.peer_lanes.send() == []
    assert read(world.far_socket) == []
    assert not world.lanes.write(VPN, udp(), None, world.now)
    world.carry(sealed)
    assert world.drops == {Drop.TUNNEL_UNKNOWN_INDEX: 1, Drop.PORT_FULL: 1}
    world.renew()
    assert world.peer_lanes.open == {}


def test_a_reload_keeps_the_lane_of_an_unchanged_peer_and_ends_that_of_one_that_went(
    make: Callable[..., LaneWorld],
) -> None:
    world = make()
    config = PeerConfig("far", public_key(bytes([2]) * 32), (Network(0, 0),), world.away)
    world.near.set_peers([config], world.now)
    world.renew()
    assert world.lanes.write(VPN, udp(), None, world.now)
    world.peer_lanes.send()
    world.near.set_peers([replace(config, psk=bytes([9]) * 32)], world.now)
    assert not world.lanes.write(VPN, udp(), None, world.now), "before anybody told the lanes"
    world.renew()
    assert world.peer_lanes.open == {}


def test_a_peer_behind_a_relay_has_no_lane(make: Callable[..., LaneWorld]) -> None:
    world = make()
    peer = world.near._by_name["far"]
    peer.endpoint = Endpoint(bytes(16), 0, "relay")
    world.renew()
    assert world.peer_lanes.open == {}


def test_an_old_session_asks_for_new_keys_when_its_lane_is_used(make: Callable[..., LaneWorld]) -> None:
    world = make()
    world.session.is_initiator = True
    world.now += 125 * SECOND_NS
    assert world.lanes.write(VPN, udp(), None, world.now)
    [(peer, size_bytes)] = world.peer_lanes.send()
    effects = world.near.lane_sealed(peer, size_bytes, world.now)
    assert Happening.STAMPED in {event.what for event in effects.events}


def test_what_the_kernel_does_not_take_comes_back_sealed_and_in_order(make: Callable[..., LaneWorld]) -> None:
    world = make()
    sent = [udp(number) for number in range(3)]
    world.refuse()
    for packet in sent:
        assert world.lanes.write(VPN, packet, None, world.now)
    world.peer_lanes.send()
    unsent = world.peer_lanes.take_unsent()
    assert [endpoint for endpoint, _, _ in unsent] == [world.away] * 3
    effects = world.far.receive([Received(datagram, world.home) for _, datagram, _ in unsent], world.now)
    assert [packet for _, packet in effects.packets] == sent


def test_what_the_kernel_did_not_take_still_leaves_when_its_peer_has_gone_meanwhile(
    make: Callable[..., LaneWorld],
) -> None:
    world = make()
    world.refuse()
    assert world.lanes.write(VPN, udp(), None, world.now)
    world.lanes.send()
    world.near.set_peers([], world.now)
    world.renew()
    assert world.peer_lanes.open == {}
    [(peer, size_bytes)] = world.peer_lanes.send()
    assert not world.near.lane_sealed(peer, size_bytes, world.now).datagrams
    [unsent] = world.peer_lanes.take_unsent()
    assert unsent.endpoint == world.away
    assert world.peer_lanes.take_unsent() == []


def test_peers_beyond_the_sessions_that_can_be_heard_have_no_lanes(make: Callable[..., LaneWorld]) -> None:
    world = make()
    assert len(world.near.lanes()) == 1
    for most, peers in ((0, {}), (1, {"far": VPN})):
        lanes = PeerLanes(world.lanes, world.near_socket, {"vpn": VPN}.__getitem__, most_sessions=most)
        lanes.renew(world.near, {"far": "vpn"})
        assert lanes.open == peers
    memory, key, name = world.session.memory, world.session.keys.receive, bytes(16)
    world.lanes.set_inbound((index, memory, key, VPN, name, b"") for index in range(MOST_SESSIONS))
    with pytest.raises(ValueError, match="too many"):
        world.lanes.set_inbound((index, memory, key, VPN, name, b"") for index in range(MOST_SESSIONS + 1))
