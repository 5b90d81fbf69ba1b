"""Bursts from port to port: both implementations, over sockets that stand in for the kernel's queues."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from bridge.ports.base import PortGone, PortKind
from bridge.ports.bursts import BURST_BYTES, Bursts, PlainBursts
from bridge.ports.counted import Counted, unwalked
from bridge.ports.device import DevicePort
from bridge.ports.policing import PlainPolice, Senders
from flow.plain import PlainTable
from flow.table import ALIASED, MARKED, MARKS, NEAR_SENDS, NO_SLOT, REPEAT, Punt, Table, mark_place
from tests.compiled import compiled_bursts, compiled_police, compiled_table
from wire import ethernet, ipv4
from wire.checksum import checksum, ones_sum, pseudo_header_sum
from wire.drop import Drop
from wire.gso import GSO_TCPV4, HEADER_BYTES, GsoHeader, pack, unpack
from wire.units import address_int

TAP0, TAP1, TUN0, PEER = range(4)
OUR_LAN, OUR_WAN, HOST, ROUTER = (bytes([2, 0, 0, 0, 0, number]) for number in (1, 2, 3, 4))
INSIDE, ALIAS, REMOTE = map(address_int, ("192.168.200.3", "192.168.1.2", "114.114.114.114"))
SOURCE_PORT, OUTSIDE_PORT = 5000, 6000
ROUTER_SLOT = 1


def transport(source: int, destination: int, protocol: int, body: bytes, check_at: int, *, partial: bool) -> bytes:
    pseudo = pseudo_header_sum(source, destination, protocol, len(body))
    check = pseudo if partial else checksum(body, pseudo)
    return body[:check_at] + check.to_bytes(2, "big") + body[check_at + 2 :]


def udp(source: int, source_port: int, *, ttl: int = 64, remote: int = REMOTE, payload: bytes = b"data") -> bytes:
    body = source_port.to_bytes(2, "big") + b"\0\x35" + (8 + len(payload)).to_bytes(2, "big") + b"\0\0" + payload
    body = transport(source, remote, ipv4.UDP, body, 6, partial=False)
    return ipv4.header(source, remote, ipv4.UDP, len(body), ttl=ttl, flags=ipv4.DONT_FRAGMENT) + body


def super_frame(source: int, source_port: int, *, ttl: int = 64) -> tuple[bytes, GsoHeader]:
    body = source_port.to_bytes(2, "big") + bytes.fromhex("0050" + "00000001" * 2 + "5010ffff" + "00000000")
    body = transport(source, REMOTE, ipv4.TCP, body + bytes(1000 * 60), 16, partial=True)
    head = ipv4.header(source, REMOTE, ipv4.TCP, len(body), ttl=ttl, flags=ipv4.DONT_FRAGMENT)
    return head + body, GsoHeader(True, GSO_TCPV4, 40, 1000, 20, 16)


LAN_HEADER = OUR_LAN + HOST + ethernet.IPV4_TYPE
WAN_HEADER = ROUTER + OUR_WAN + ethernet.IPV4_TYPE


class Bench:
    """Three devices and a peer; of every flow from `INSIDE` the table knows that it leaves by `out`."""

    def __init__(self, bursts: Bursts, table: Table, stack: ExitStack, bare: tuple[int, ...]) -> None:
        self.bursts = bursts
        self.table = table
        self.bare = bare
        self.cables: dict[int, socket.socket] = {}
        self.ports: dict[int, DevicePort] = {}
        slots = memoryview(bytearray(4 * 32)).cast("Q")
        slots[4 * ROUTER_SLOT] = int.from_bytes(ROUTER, "big") | 2 << 48  # with a state, as an ARP table has it
        for number, kind, mac in ((TAP0, "tap", OUR_LAN), (TAP1, "tap", OUR_WAN), (TUN0, "tun", b"")):
            self.cables[number] = self._attach(number, kind, stack)
            table.set_port(number, mac, 1500, slots if mac else None)
        table.set_port(PEER, b"", 1420, None)

    def _attach(self, number: int, kind: PortKind, stack: ExitStack) -> socket.socket:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (near, far):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
        port = DevicePort(
            f"port {number}", kind, "none", near.detach(), vnet_header=number not in self.bare, offloads=0
        )
        self.ports[number] = port
        stack.callback(port.close)
        stack.callback(far.close)
        self.bursts.attach(number, port)
        return far

    def police(self, number: int) -> None:
        """Judge what is to be walked from now on."""
        kind = PlainPolice if isinstance(self.table, PlainTable) else compiled_police()
        self.bursts.attach(number, self.ports[number], kind(Senders.STATIONS, 14, 1))

    def learn(self, in_port: int, out: int, protocol: int = ipv4.UDP, flags: int = REPEAT | NEAR_SENDS) -> None:
        before, after = (INSIDE, SOURCE_PORT, REMOTE, 53), (ALIAS, OUTSIDE_PORT, REMOTE, 53)
        if protocol == ipv4.TCP:
            before, after = (*before[:3], 80), (*after[:3], 80)
        slot = ROUTER_SLOT if out in (TAP0, TAP1) else NO_SLOT
        assert self.table.learn(in_port, out, protocol, before, after, 60, slot, flags | ALIASED, 0) >= 0

    def comes(self, number: int, frame: bytes, gso: GsoHeader | None = None) -> None:
        header = b"" if number in self.bare else pack(gso, 0 if number == TUN0 else 14)
        self.cables[number].send(header + frame)

    def left(self, number: int) -> list[tuple[bytes, GsoHeader | None]]:
        frames = []
        while True:
            try:
                whole = self.cables[number].recv(1 << 17)
            except BlockingIOError:
                return frames
            if number not in self.bare:
                link_bytes = 0 if number == TUN0 else 14
                frames.append((whole[HEADER_BYTES:], unpack(whole, link_bytes)))
            else:
                frames.append((whole, None))


Make = Callable[..., Bench]


@pytest.fixture(params=["plain", "compiled"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    with ExitStack() as stack:

        def bench(bare: tuple[int, ...] = ()) -> Bench:
            """`bare`: ports without a virtio header."""
            if request.param == "plain":
                table = PlainTable(64)
                return Bench(PlainBursts(table), table, stack, bare)
            compiled = compiled_table()(64, 1)
            return Bench(compiled_bursts()(compiled), compiled, stack, bare)

        yield bench


def test_a_known_flow_passes_rewritten_with_another_link_header(make: Make) -> None:
    bench = make()
    bench.learn(TAP0, TAP1)
    bench.comes(TAP0, LAN_HEADER + udp(INSIDE, SOURCE_PORT))
    assert bench.bursts.take(TAP0, 64, 0) == ([], [])
    assert bench.left(TAP1) == [(WAN_HEADER + udp(ALIAS, OUTSIDE_PORT, ttl=63), None)]


@pytest.mark.parametrize("tag", ["8100a000", "88a80000", "8100a0008100a000"])
def test_a29_a_priority_tag_of_a_known_flow_comes_off_and_the_offsets_of_a_super_frame_follow(
    make: Make, tag: str
) -> None:
    bench = make()
    bench.learn(TAP0, TAP1, ipv4.TCP)
    whole, gso = super_frame(INSIDE, SOURCE_PORT)
    tagged = LAN_HEADER[:12] + bytes.fromhex(tag) + LAN_HEADER[12:] + whole
    more = len(tag) // 2
    claims = gso._replace(header_bytes=gso.header_bytes + more, checksum_start=gso.checksum_start + more)
    bench.comes(TAP0, tagged, claims)
    assert bench.bursts.take(TAP0, 64, 0) == ([], [])
    ((frame, left),) = bench.left(TAP1)
    expected, _ = super_frame(ALIAS, OUTSIDE_PORT, ttl=63)
    assert (frame, left) == (WAN_HEADER + expected, gso)


def test_a29_a_frame_of_another_vlan_reaches_the_walk_with_its_tag(make: Make) -> None:
    bench = make()
    bench.learn(TAP0, TAP1)
    frame = LAN_HEADER[:12] + bytes.fromhex("8100a007") + LAN_HEADER[12:] + udp(INSIDE, SOURCE_PORT)
    bench.comes(TAP0, frame)
    assert bench.bursts.take(TAP0, 64, 0) == ([(frame, None)], [])


def test_ethernet_padding_stays_behind(make: Make) -> None:
    bench = make()
    bench.learn(TAP0, TAP1)
    bench.comes(TAP0, LAN_HEADER + udp(INSIDE, SOURCE_PORT) + bytes(14))
    bench.bursts.take(TAP0, 64, 0)
    assert bench.left(TAP1) == [(WAN_HEADER + udp(ALIAS, OUTSIDE_PORT, ttl=63), None)]


def test_between_tap_and_tun_the_link_header_comes_and_goes_and_offsets_follow(make: Make) -> None:
    bench = make()
    bench.learn(TAP0, TUN0, ipv4.TCP)
    packet, claims = super_frame(INSIDE, SOURCE_PORT)
    rewritten, _ = super_frame(ALIAS, OUTSIDE_PORT, ttl=63)
    bench.comes(TAP0, LAN_HEADER + packet, claims)
    assert bench.bursts.take(TAP0, 64, 0) == ([], [])
    assert bench.left(TUN0) == [(rewritten, claims)]
    bench.learn(TUN0, TAP1, ipv4.TCP)
    bench.comes(TUN0, packet, claims)
    assert bench.bursts.take(TUN0, 64, 0) == ([], [])
    assert bench.left(TAP1) == [(WAN_HEADER + rewritten, claims)]


def test_what_is_not_known_goes_to_the_walk_in_order_and_known_flows_go_on(make: Make) -> None:
    bench = make()
    bench.learn(TAP0, TAP1)
    strange = [LAN_HEADER + udp(INSIDE, port) for port in (1, 2, 3)]
    for frame in strange:
        bench.comes(TAP0, frame)
        bench.comes(TAP0, LAN_HEADER + udp(INSIDE, SOURCE_PORT))
    assert bench.bursts.take(TAP0, 64, 0) == ([(frame, None) for frame in strange], [])
    assert len(bench.left(TAP1)) == 3
    assert bench.bursts.punts() == {Punt.UNKNOWN: 3}


def test_nothing_overtakes_a_packet_of_a_known_flow_that_is_walked(make: Make) -> None:
    bench = make()
    bench.learn(TAP0, TAP1)
    first, last = udp(INSIDE, SOURCE_PORT, ttl=1), udp(INSIDE, SOURCE_PORT)
    bench.comes(TAP0, LAN_HEADER + first)
    bench.comes(TAP0, LAN_HEADER + last)
    walked, _ = bench.bursts.take(TAP0, 64, 0)
    assert walked[0] == (LAN_HEADER + first, None)
    sent = bench.left(TAP1)
    assert not sent, "the second has overtaken the first"
    again, _ = bench.bursts.take(TAP0, 64, 0)
    assert len(walked) + len(again) + len(bench.left(TAP1)) == 2


@pytest.mark.parametrize("frame", [b"", b"\x02", LAN_HEADER[:13], LAN_HEADER, LAN_HEADER + b"\x45"])
def test_a_frame_of_any_length_reaches_the_walk_as_it_came(make: Make, frame: bytes) -> None:
    bench = make()
    bench.learn(TAP0, TAP1)
    bench.comes(TAP0, LAN_HEADER + udp(INSIDE, SOURCE_PORT))  # what lies in the buffer before
    bench.bursts.take(TAP0, 64, 0)
    bench.comes(TAP0, frame)
    assert bench.bursts.take(TAP0, 64, 0)[0] == [(frame, None)]


@pytest.mark.parametrize("number", [TAP0, TUN0])
@pytest.mark.parametrize("field", [0, 13, 14, 0x7FFF, 0x8000, 0xFFF2, 0xFFFF])
def test_what_a_virtio_header_claims_reaches_the_walk_as_it_came(make: Make, number: int, field: int) -> None:
    bench = make()
    header = b"\1\1" + field.to_bytes(2, "little") * 4
    frame = (LAN_HEADER if number == TAP0 else b"") + udp(INSIDE, SOURCE_PORT)
    bench.cables[number].send(header + frame)
    claims = unpack(header, 0 if number == TUN0 else 14)
    assert bench.bursts.take(number, 64, 0) == ([(frame, claims)], [])


def test_a_hint_at_the_headers_size_may_be_any_number(make: Make) -> None:
    """From a tun to a tap it grows by the link header, and has two bytes."""
    bench = make()
    bench.learn(TUN0, TAP1, ipv4.TCP)
    packet, claims = super_frame(INSIDE, SOURCE_PORT)
    bench.comes(TUN0, packet, claims._replace(header_bytes=0xFFFF))
    bench.bursts.take(TUN0, 64, 0)
    [(_, left)] = bench.left(TAP1)
    assert left == claims._replace(header_bytes=0xFFFF - 14)


def test_a_frame_for_a_peer_comes_back_for_its_writer(make: Make) -> None:
    bench = make()
    bench.learn(TAP0, PEER, ipv4.TCP)
    packet, claims = super_frame(INSIDE, SOURCE_PORT)
    bench.comes(TAP0, LAN_HEADER + packet, claims)
    rewritten, _ = super_frame(ALIAS, OUTSIDE_PORT, ttl=63)
    assert bench.bursts.take(TAP0, 64, 0) == ([], [(PEER, rewritten, claims)])


def test_devices_without_virtio_header_pass_what_is_plain(make: Make) -> None:
    bench = make(bare=(TAP1, TUN0))
    bench.learn(TUN0, TAP1)
    bench.comes(TUN0, udp(INSIDE, SOURCE_PORT))
    assert bench.bursts.take(TUN0, 64, 0) == ([], [])
    assert bench.left(TAP1) == [(WAN_HEADER + udp(ALIAS, OUTSIDE_PORT, ttl=63), None)]


def test_towards_a_device_without_virtio_header_a_super_frame_is_cut_and_not_overtaken(make: Make) -> None:
    """It leaves as segments with whole checksums, whoever writes them, and plain packets behind it leave behind it."""
    bench = make(bare=(TAP1,))
    bench.learn(TAP0, TAP1, ipv4.TCP)
    bench.learn(TAP0, TAP1)
    packet, claims = super_frame(INSIDE, SOURCE_PORT)
    bench.comes(TAP0, LAN_HEADER + packet, claims)
    bench.comes(TAP0, LAN_HEADER + udp(INSIDE, SOURCE_PORT))
    walked, queued = bench.bursts.take(TAP0, 64, 0)
    assert walked == []
    for number, frame, gso in queued:
        assert number == TAP1
        bench.ports[TAP1].write(frame, gso)
    *segments, last = bench.left(TAP1)
    assert len(segments) == 60
    assert all(
        ones_sum(frame[34:], pseudo_header_sum(ALIAS, REMOTE, ipv4.TCP, 1020)) == 0xFFFF for frame, _ in segments
    )
    assert last[0] == WAN_HEADER + udp(ALIAS, OUTSIDE_PORT, ttl=63)


def test_what_passes_is_counted_at_both_ports_once(make: Make) -> None:
    bench = make()
    bench.learn(TAP0, TAP1)
    frame = LAN_HEADER + udp(INSIDE, SOURCE_PORT)
    for _ in range(3):
        bench.comes(TAP0, frame)
    bench.bursts.take(TAP0, 64, 0)
    size = len(frame)
    assert sorted(bench.bursts.counted()) == [
        Counted(TAP0, 3, 3 * size, 0, 0, 0, 0, 0),
        Counted(TAP1, 0, 0, 3, 3 * size, 0, 0, 0),
    ]
    assert bench.bursts.counted() == []


def test_a_full_device_loses_frames_and_says_so(make: Make) -> None:
    bench = make()
    bench.learn(TAP0, TAP1, ipv4.TCP)
    packet, claims = super_frame(INSIDE, SOURCE_PORT)
    for _ in range(200):  # the far end of TAP1 reads nothing: its queue is shorter than that
        bench.comes(TAP0, LAN_HEADER + packet, claims)
        bench.bursts.take(TAP0, 64, 0)
    [refused] = [counted for counted in bench.bursts.counted() if counted.port == TAP1]
    assert refused.tx_packets == 200
    assert refused.full == 200 - len(bench.left(TAP1)) > 0


def test_a_burst_ends_behind_its_limits(make: Make) -> None:
    bench = make()
    bench.learn(TAP0, TAP1)
    for _ in range(5):
        bench.comes(TAP0, LAN_HEADER + udp(INSIDE, SOURCE_PORT))
    bench.bursts.take(TAP0, 3, 0)
    assert len(bench.left(TAP1)) == 3
    bench.bursts.take(TAP0, 3, 0)
    assert len(bench.left(TAP1)) == 2
    assert BURST_BYTES >= 65_535


def test_a_device_that_is_gone_is_told(make: Make) -> None:
    bench = make()
    bench.ports[TAP0].close()
    with pytest.raises(PortGone):
        bench.bursts.take(TAP0, 64, 0)


def test_what_was_read_before_a_device_went_is_not_lost() -> None:
    with ExitStack() as stack:
        table = compiled_table()(64, 1)
        bench = Bench(compiled_bursts()(table), table, stack, ())
        bench.learn(TAP0, PEER)
        bench.comes(TAP0, LAN_HEADER + udp(INSIDE, SOURCE_PORT))
        bench.cables[TAP0].close()
        assert bench.bursts.take(TAP0, 64, 0)[1] == [(PEER, udp(ALIAS, OUTSIDE_PORT, ttl=63), None)]
        with pytest.raises(PortGone):
            bench.bursts.take(TAP0, 64, 0)


def test_a_port_that_there_is_no_room_for_is_an_error_of_ours() -> None:
    with ExitStack() as stack:
        table = compiled_table()(64, 1)
        bench = Bench(compiled_bursts()(table), table, stack, ())
        for number in (1024, 65_535):
            with pytest.raises(ValueError, match="no port"):
                bench.bursts.attach(number, bench.ports[TAP0])
            with pytest.raises(ValueError, match="no port"):
                bench.bursts.take(number, 64, 0)


def test_a_port_that_is_behind_drops_what_its_senders_have_no_share_for_and_counts_it(make: Make) -> None:
    """Frames that the table knows pass beside any others; every frame has one fate."""
    bench = make()
    bench.police(TAP0)
    bench.learn(TAP0, TAP1)
    known = LAN_HEADER + udp(INSIDE, SOURCE_PORT)
    walked = came = passed = 0
    for _ in range(400):
        for number in range(8):
            bench.comes(TAP0, LAN_HEADER + udp(INSIDE, 6000 + number))
        bench.comes(TAP0, known)
        came += 9
        walked += len(bench.bursts.take(TAP0, 9, 0)[0])  # never seen empty
        passed += len(bench.left(TAP1))
    [counted] = [counted for counted in bench.bursts.counted() if counted.port == TAP0]
    assert passed == 400
    assert counted.policed > 0
    assert came == walked + passed + counted.policed
    assert counted.rx_packets == passed + counted.policed
    assert (Drop.WALK_POLICED, counted.policed) in unwalked(counted)


def test_a_punt_that_is_policed_does_not_end_the_burst(make: Make) -> None:
    """A fragment to be walked holds up what is behind it, one that is dropped does not."""
    bench = make()
    bench.police(TAP0)
    bench.learn(TAP0, TAP1)
    fragment = bytearray(udp(INSIDE, 7000))
    fragment[6:8] = b"\x20\x00"
    fragment[10:12] = bytes(2)
    fragment[10:12] = checksum(bytes(fragment[:20])).to_bytes(2, "big")
    for _ in range(80):
        for _ in range(64):
            bench.comes(TAP0, LAN_HEADER + bytes(fragment))
        for _ in range(64):
            bench.bursts.take(TAP0, 1, 0)
    bench.comes(TAP0, LAN_HEADER + bytes(fragment))
    for _ in range(20):
        bench.comes(TAP0, LAN_HEADER + bytes(fragment))
        bench.comes(TAP0, LAN_HEADER + udp(INSIDE, SOURCE_PORT))
    taken = sum(len(bench.bursts.take(TAP0, 64, 0)[0]) for _ in range(8))
    assert taken < 8
    assert len(bench.left(TAP1)) == 20


@pytest.mark.parametrize("protocol", [ipv4.UDP, ipv4.TCP])
def test_what_is_for_an_outside_port_that_nobody_has_is_dropped_without_a_walk(make: Make, protocol: int) -> None:
    bench = make()
    marks = bytearray(MARKS)
    bench.table.set_outside(TAP1, ALIAS, protocol, marks)
    marks[mark_place(OUTSIDE_PORT)] = MARKED
    wan = OUR_WAN + ROUTER + ethernet.IPV4_TYPE

    def comes(port: int, to: int, of: int = protocol) -> int:
        body = (
            b"\x00\x35"
            + port.to_bytes(2, "big")
            + (b"\0\x0c\0\0data" if of == ipv4.UDP else bytes(8) + b"\x50\x02" + bytes(6))
        )
        check_at = 6 if of == ipv4.UDP else 16
        body = transport(REMOTE, to, of, body, check_at, partial=False)
        bench.comes(TAP1, wan + ipv4.header(REMOTE, to, of, len(body), ttl=64) + body)
        return len(bench.bursts.take(TAP1, 64, 0)[0])

    other = ipv4.TCP if protocol == ipv4.UDP else ipv4.UDP
    assert comes(OUTSIDE_PORT, ALIAS) == 1, "somebody has it"
    assert comes(OUTSIDE_PORT + 1, ALIAS) == 0
    assert comes(OUTSIDE_PORT + 1, ALIAS + 1) == 1, "another address"
    assert comes(OUTSIDE_PORT + 1, ALIAS, other) == 1, "a protocol that nothing is known of"
    assert sum(counted.no_link for counted in bench.bursts.counted()) == 1
    marks[mark_place(OUTSIDE_PORT + 1)] = MARKED
    assert comes(OUTSIDE_PORT + 1, ALIAS) == 1, "now somebody has it"
    bench.table.set_outside(TAP1, ALIAS, protocol, None)
    assert comes(OUTSIDE_PORT + 2, ALIAS) == 1, "no silence is wanted any more"
