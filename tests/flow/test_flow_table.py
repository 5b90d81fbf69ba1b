"""The promises of both flow tables: repeated decisions, every punt, and the caveats, at a virtual clock.

Frames in and out are made by scapy, checksums too.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.l2 import Ether
from scapy.packet import Packet as ScapyPacket

from flow.table import (
    ALIASED,
    BRIEF,
    BRIEF_LEASE_S,
    FORGET_S,
    HAND_STEPS,
    IDLE_S,
    IN_ORDER,
    LEASE_S,
    NEAR_SENDS,
    NO_SLOT,
    ONCE_S,
    REPEAT,
    Forwarded,
    Punt,
    Table,
)
from tests.compiled import table_kind
from wire.gso import GSO_TCPV4, GSO_UDP_L4, GsoHeader
from wire.units import SECOND_NS, address_int, mac_bytes

LAN, WORLD, RAW = 0, 1, 2  # ports: two taps and a tun
MAC_LAN, MAC_WORLD, HOST, ROUTER = "02:00:00:00:c8:02", "02:00:00:00:01:02", "02:aa:00:00:00:0a", "02:aa:00:00:00:01"
A, E, X = "192.168.200.10", "203.0.113.5", "192.168.1.2"
SLOT = 3
NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1}


class Bench:
    """A table with three ports; the slots of two neighbours are in `words`."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.now = 5_000 * SECOND_NS
        self.words = {LAN: array("Q", bytes(8 * 64)), WORLD: array("Q", bytes(8 * 64))}
        self.neighbour(LAN, HOST)
        self.neighbour(WORLD, ROUTER)
        table.set_port(LAN, mac_bytes(MAC_LAN), 1500, memoryview(self.words[LAN]))
        table.set_port(RAW, b"", 1420, None)
        self.mtu(1500)

    def mtu(self, size_bytes: int) -> None:
        self.table.set_port(WORLD, mac_bytes(MAC_WORLD), size_bytes, memoryview(self.words[WORLD]))

    def neighbour(self, port: int, mac: str) -> None:
        self.words[port][SLOT * 4] = int.from_bytes(mac_bytes(mac), "big") | 2 << 48

    def out(self, protocol: str = "udp", number: int = 5000, *, flags: int = REPEAT | NEAR_SENDS | ALIASED) -> int:
        """The walk has forwarded a packet of A:`number` to E, by the world's port under X:6000."""
        far = 8 if protocol == "icmp" else 53
        before = address_int(A), number, address_int(E), far
        after = address_int(X), 6000, address_int(E), far
        return self.table.learn(LAN, WORLD, NUMBERS[protocol], before, after, 100, SLOT, flags, self.now)

    def back(self, protocol: str = "udp", *, out_port: int = LAN, slot: int = SLOT) -> int:
        """And one of E to X:6000, back to A:5000."""
        if protocol == "icmp":
            before, after = (address_int(E), 6000, address_int(X), 0), (address_int(E), 5000, address_int(A), 0)
        else:
            before, after = (address_int(E), 53, address_int(X), 6000), (address_int(E), 53, address_int(A), 5000)
        return self.table.learn(WORLD, out_port, NUMBERS[protocol], before, after, 100, slot, REPEAT, self.now)

    def forward(self, port: int, packet: ScapyPacket | bytes, claims: GsoHeader | None = None) -> Forwarded | Punt:
        return self.table.forward(port, bytes(packet), claims, self.now)

    def harvest(self) -> list[Any]:
        return self.table.harvest(self.table.limit, self.now)


@pytest.fixture(params=["plain", "compiled"])
def make(request: pytest.FixtureRequest) -> Callable[..., Bench]:
    kind = table_kind(request.param)
    return lambda limit=64: Bench(kind(limit))


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()


def from_lan(layer: ScapyPacket | bytes, **ip: Any) -> Ether:
    """A frame of A to E."""
    return Ether(src=HOST, dst=MAC_LAN, type=0x0800) / IP(**{"src": A, "dst": E, "flags": "DF", **ip}) / layer


def from_world(layer: ScapyPacket, **ip: Any) -> Ether:
    """A frame of E to X."""
    return Ether(src=ROUTER, dst=MAC_WORLD, type=0x0800) / IP(**{"src": E, "dst": X, **ip}) / layer


def udp(data: bytes = b"data", **fields: Any) -> ScapyPacket:
    return UDP(**{"sport": 5000, "dport": 53, **fields}) / data


def tcp(flags: str = "A", data: bytes = b"data", **fields: Any) -> ScapyPacket:
    return TCP(**{"sport": 5000, "dport": 53, "flags": flags, **fields}) / data


def rebuilt(frame: bytes) -> bytes:
    """The frame with all checksums as scapy computes them."""
    found = Ether(frame)
    del found[IP].chksum
    for layer in (UDP, TCP, ICMP):
        if layer in found:
            del found[layer].chksum
    return bytes(found)


def repeated(found: Forwarded | Punt) -> Forwarded:
    assert isinstance(found, Forwarded), found
    return found


# What is repeated


@pytest.mark.parametrize("protocol", ["udp", "tcp", "icmp"])
def test_a_decision_is_repeated_with_another_source_a_hop_less_and_right_checksums(bench: Bench, protocol: str) -> None:
    bench.out(protocol)
    layer = {"udp": udp(), "tcp": tcp(), "icmp": ICMP(type=8, id=5000, seq=7) / b"data"}[protocol]
    out_port, frame, claims = repeated(bench.forward(LAN, from_lan(layer, ttl=64)))
    assert (out_port, claims) == (WORLD, None)
    sent = Ether(frame)
    assert (sent.dst, sent.src, sent[IP].src, sent[IP].dst, sent[IP].ttl) == (ROUTER, MAC_WORLD, X, E, 63)
    assert (sent[ICMP].id if ICMP in sent else sent[IP].payload.sport) == 6000
    assert rebuilt(frame) == frame


@pytest.mark.parametrize("protocol", ["udp", "tcp", "icmp"])
def test_what_comes_back_gets_another_destination(bench: Bench, protocol: str) -> None:
    bench.back(protocol)
    layer = {
        "udp": UDP(sport=53, dport=6000) / b"data",
        "tcp": TCP(sport=53, dport=6000, flags="PA") / b"data",
        "icmp": ICMP(type=0, id=6000) / b"data",
    }[protocol]
    out_port, frame, _ = repeated(bench.forward(WORLD, from_world(layer)))
    sent = Ether(frame)
    assert (out_port, sent.dst, sent[IP].src, sent[IP].dst) == (LAN, HOST, E, A)
    assert (sent[ICMP].id if ICMP in sent else sent[IP].payload.dport) == 5000
    assert rebuilt(frame) == frame


def test_a_raw_port_takes_the_packet_without_its_link_header_and_padding_stays_behind(bench: Bench) -> None:
    bench.back(out_port=RAW, slot=NO_SLOT)
    frame = bytes(from_world(UDP(sport=53, dport=6000) / b"x")) + bytes(17)
    out_port, packet, _ = repeated(bench.forward(WORLD, frame))
    assert (out_port, len(packet)) == (RAW, 29)
    assert bytes(IP(packet)[UDP].payload) == b"x"


def test_what_is_not_rewritten_keeps_every_byte_but_the_hop(bench: Bench) -> None:
    ends = (address_int(A), 5000, address_int(E), 53)
    bench.table.learn(LAN, RAW, 17, ends, ends, 100, NO_SLOT, REPEAT, bench.now)
    frame = repeated(bench.forward(LAN, from_lan(udp(chksum=0x1234), ttl=9))).frame
    assert frame == bytes(from_lan(udp(chksum=0x1234), ttl=8))[14:]


@pytest.mark.parametrize("flags", ["evil", 0])
def test_neither_the_reserved_flag_nor_a_clear_df_makes_a_fragment(bench: Bench, flags: Any) -> None:
    bench.out(flags=REPEAT)
    repeated(bench.forward(LAN, from_lan(udp(), flags=flags)))


def test_a_udp_checksum_of_zero_stays_zero_and_a_computed_zero_is_sent_as_ones(bench: Bench) -> None:
    """RFC 768."""
    bench.out()
    assert Ether(repeated(bench.forward(LAN, from_lan(udp(chksum=0)))).frame)[UDP].chksum == 0
    plain = Ether(repeated(bench.forward(LAN, from_lan(udp(b"\0\0")))).frame)
    data = plain[UDP].chksum.to_bytes(2, "big")  # with which the packet sums to all ones as it leaves
    sent = repeated(bench.forward(LAN, from_lan(udp(data)))).frame
    assert Ether(sent)[UDP].chksum == 0xFFFF


def test_a_wrong_checksum_stays_wrong(bench: Bench) -> None:
    """RFC 1624: corruption is not laundered."""
    bench.out()
    right = Ether(bytes(from_lan(udp())))[UDP].chksum
    frame = repeated(bench.forward(LAN, from_lan(udp(chksum=right ^ 1)))).frame
    assert rebuilt(frame) != frame


def pseudo(source: str, size_bytes: int) -> int:
    """The uncomplemented sum of the pseudo-header of a TCP packet to E."""
    head = bytes(IP(src=source, dst=E))[12:20] + bytes((0, 6)) + size_bytes.to_bytes(2, "big")
    return sum(int.from_bytes(head[at : at + 2], "big") for at in range(0, 12, 2)) % 0xFFFF


def test_a_partial_checksum_takes_the_addresses_and_not_the_ports(bench: Bench) -> None:
    bench.out("tcp")
    claims = GsoHeader(True, 0, 40, 0, 20, 16)
    out = repeated(bench.forward(LAN, from_lan(tcp(chksum=pseudo(A, 24))), claims))
    assert (Ether(out.frame)[TCP].chksum, out.gso) == (pseudo(X, 24), claims)


@pytest.mark.parametrize(
    ("protocol", "claims"),
    [("tcp", GsoHeader(True, GSO_TCPV4, 40, 1400, 20, 16)), ("udp", GsoHeader(True, GSO_UDP_L4, 28, 1400, 20, 6))],
)
def test_a_super_frame_passes_whole(bench: Bench, protocol: str, claims: GsoHeader) -> None:
    bench.out(protocol)
    layer = tcp(data=bytes(20_000)) if protocol == "tcp" else udp(bytes(20_000))
    out = repeated(bench.forward(LAN, from_lan(layer), claims))
    assert (len(out.frame), out.gso) == (14 + 20_000 + (40 if protocol == "tcp" else 28), claims)


# What is not


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"", Punt.ETHERNET),
        (bytes(13), Punt.ETHERNET),
        (Ether(src=HOST, dst="ff:ff:ff:ff:ff:ff", type=0x0800) / IP(src=A, dst=E) / udp(), Punt.ETHERNET),
        (Ether(src=HOST, dst=MAC_WORLD, type=0x0800) / IP(src=A, dst=E) / udp(), Punt.ETHERNET),
        (Ether(src="01:00:5e:00:00:01", dst=MAC_LAN, type=0x0800) / IP(src=A, dst=E) / udp(), Punt.ETHERNET),
        (Ether(src=MAC_LAN, dst=MAC_LAN, type=0x0800) / IP(src=A, dst=E) / udp(), Punt.ETHERNET),
        (Ether(src="00:00:00:00:00:00", dst=MAC_LAN, type=0x0800) / IP(src=A, dst=E) / udp(), Punt.ETHERNET),
        (Ether(src=HOST, dst=MAC_LAN, type=0x0806) / IP(src=A, dst=E) / udp(), Punt.ETHERNET),
        (Ether(src=HOST, dst=MAC_LAN, type=0x0800), Punt.HEADER),
        (bytes(from_lan(udp()))[:33], Punt.HEADER),
        (from_lan(udp(), chksum=1), Punt.HEADER),
        (from_lan(udp(), version=6), Punt.HEADER),
        (from_lan(udp(), options=[IPOption(b"\x01\x01\x01\x00")]), Punt.HEADER),
        (from_lan(udp(), len=33), Punt.HEADER),
        (from_lan(udp(), len=19), Punt.HEADER),
        (from_lan(udp(), flags="MF"), Punt.FRAGMENT),
        (from_lan(udp(), frag=1), Punt.FRAGMENT),
        (from_lan(b"data", proto=47), Punt.PROTOCOL),
        (from_lan(ICMP(type=3) / bytes(28)), Punt.PROTOCOL),
        (from_lan(b"data", proto=17), Punt.TRANSPORT),
        (from_lan(bytes(7), proto=1), Punt.TRANSPORT),
        (from_lan(bytes(19), proto=6), Punt.TRANSPORT),
        (from_lan(tcp(dataofs=4)), Punt.TRANSPORT),
        (from_lan(tcp(dataofs=7)), Punt.TRANSPORT),
        (from_lan(udp(len=7)), Punt.TRANSPORT),
        (from_lan(udp(len=13)), Punt.TRANSPORT),
        (from_lan(udp(sport=0)), Punt.TRANSPORT),
        (from_lan(tcp(dport=0)), Punt.TRANSPORT),
        (from_lan(udp(sport=5001)), Punt.UNKNOWN),
        (from_lan(tcp(dport=54)), Punt.UNKNOWN),
        (from_lan(udp(), dst="203.0.113.6"), Punt.UNKNOWN),
        (from_lan(ICMP(type=8, id=5001)), Punt.UNKNOWN),
        (from_lan(ICMP(type=0, id=5000)), Punt.UNKNOWN),
        (from_lan(udp(), ttl=1), Punt.TTL),
        (from_lan(udp(), ttl=0), Punt.TTL),
        (from_lan(tcp("S")), Punt.CONTROL),
        (from_lan(tcp("FA")), Punt.CONTROL),
        (from_lan(tcp("R")), Punt.CONTROL),
        (from_lan(udp(bytes(1473))), Punt.TOO_BIG),
        (from_lan(udp(), flags=0), Punt.IDENTIFICATION),
    ],
)
def test_what_is_unusual_goes_to_the_walk_and_nothing_has_changed(
    bench: Bench, frame: ScapyPacket | bytes, why: Punt
) -> None:
    for protocol in NUMBERS:
        bench.out(protocol)
    assert bench.forward(LAN, frame) is why
    assert bench.harvest() == []
    assert sum(flow.packets for flow in bench.table.live(bench.now)) == 3


@pytest.mark.parametrize(
    ("layer", "claims"),
    [
        (udp(), GsoHeader(True, 0, 0, 0, 20, 16)),
        (udp(), GsoHeader(True, 0, 0, 0, 34, 6)),
        (udp(), GsoHeader(True, GSO_TCPV4, 28, 100, 20, 6)),
        (udp(), GsoHeader(True, 3, 28, 100, 20, 6)),
        (udp(bytes(500)), GsoHeader(True, GSO_UDP_L4, 28, 0, 20, 6)),
        (tcp(), GsoHeader(False, GSO_TCPV4, 40, 1400, 0, 0)),
        (tcp(), GsoHeader(True, GSO_TCPV4, 40, 7, 20, 16)),
        (ICMP(type=8, id=5000), GsoHeader(True, 0, 0, 0, 20, 2)),
    ],
)
def test_claims_that_do_not_fit_are_the_walks_to_judge(bench: Bench, layer: ScapyPacket, claims: GsoHeader) -> None:
    for protocol in NUMBERS:
        bench.out(protocol)
    assert bench.forward(LAN, from_lan(layer), claims) is Punt.CLAIMS


def test_what_its_neighbours_in_the_flow_could_overtake_ends_a_burst() -> None:
    assert {Punt.FRAGMENT, Punt.TTL, Punt.CONTROL, Punt.TOO_BIG, Punt.IDENTIFICATION, Punt.NEXT_HOP} <= IN_ORDER
    assert not {Punt.ETHERNET, Punt.UNKNOWN, Punt.OUTDATED} & IN_ORDER


# What may change under an entry


def test_another_epoch_and_a_withdrawn_decision_wait_for_the_walk(bench: Bench) -> None:
    frame = from_lan(udp())
    for withdraw in (
        bench.table.outdate,
        lambda: bench.table.settle(LAN, 17, (address_int(A), 5000, address_int(E), 53), bench.now, True),
        lambda: bench.out(flags=NEAR_SENDS),
    ):
        bench.out()
        repeated(bench.forward(LAN, frame))
        assert next(iter(bench.table.live(bench.now))).fast
        withdraw()
        assert bench.forward(LAN, frame) is Punt.OUTDATED
        assert not next(iter(bench.table.live(bench.now))).fast


def test_an_epoch_that_comes_round_again_revives_nothing(bench: Bench) -> None:
    bench.out()
    for turn in range(1 << 16):
        bench.table.outdate()
        assert turn % 4096 or bench.forward(LAN, from_lan(udp())) is Punt.OUTDATED
    assert bench.forward(LAN, from_lan(udp())) is Punt.OUTDATED


def test_a_brief_lease_runs_out_soon(bench: Bench) -> None:
    """U5a: the link of a question may end 15 s after its last packet."""
    bench.out(flags=REPEAT | NEAR_SENDS | ALIASED | BRIEF)
    bench.now += BRIEF_LEASE_S * SECOND_NS
    assert isinstance(bench.forward(LAN, from_lan(udp())), Forwarded)
    bench.now += SECOND_NS
    assert bench.forward(LAN, from_lan(udp())) is Punt.OUTDATED


def test_a_lease_runs_out_though_the_flow_is_busy(bench: Bench) -> None:
    bench.out()
    for _ in range(LEASE_S):
        repeated(bench.forward(LAN, from_lan(udp())))
        bench.now += SECOND_NS
    bench.now += SECOND_NS
    assert bench.forward(LAN, from_lan(udp())) is Punt.OUTDATED


def test_the_next_hop_is_read_from_its_slot_at_every_packet(bench: Bench) -> None:
    bench.out()
    bench.neighbour(WORLD, "02:aa:00:00:00:77")
    assert Ether(repeated(bench.forward(LAN, from_lan(udp()))).frame).dst == "02:aa:00:00:00:77"
    bench.words[WORLD][SLOT * 4] = 7 << 48  # a state, no address
    assert bench.forward(LAN, from_lan(udp())) is Punt.NEXT_HOP


def test_another_mtu_holds_for_all_entries_at_once(bench: Bench) -> None:
    bench.out()
    bench.mtu(31)
    assert bench.forward(LAN, from_lan(udp())) is Punt.TOO_BIG
    bench.mtu(32)
    repeated(bench.forward(LAN, from_lan(udp())))


# What is counted


def test_hits_are_told_once_and_the_walks_own_packets_never(bench: Bench) -> None:
    entry = bench.out()
    assert bench.harvest() == []
    bench.now += 7 * SECOND_NS
    for _ in range(3):
        bench.forward(LAN, from_lan(udp()))
    seen_ns = bench.now
    bench.now += SECOND_NS
    (hits,) = bench.harvest()
    assert (hits.entry, hits.out_port, hits.slot, hits.near_sends) == (entry, WORLD, SLOT, True)
    assert (hits.remote, hits.remote_port) == (address_int(E), 53)
    assert (hits.packets, hits.size_bytes, hits.last_ns, hits.acknowledgment) == (3, 96, seen_ns, None)
    assert bench.harvest() == []
    (flow,) = bench.table.live(bench.now)
    assert (flow.packets, flow.bytes, flow.last_seen_ns) == (4, 196, seen_ns)
    assert (flow.inside, flow.outside) == ((address_int(A), 5000), (address_int(E), 53))


def test_the_far_side_is_the_remote_in_both_directions(bench: Bench) -> None:
    bench.back()
    bench.forward(WORLD, from_world(UDP(sport=53, dport=6000) / b"data"))
    (hits,) = bench.harvest()
    assert (hits.near_sends, hits.remote, hits.remote_port) == (False, address_int(E), 53)
    (flow,) = bench.table.live(bench.now)
    assert (flow.inside, flow.outside) == ((address_int(A), 5000), (address_int(E), 53))


def test_a_query_is_shown_by_its_identifier(bench: Bench) -> None:
    bench.out("icmp")
    bench.back("icmp")
    out, back = bench.table.live(bench.now)
    assert (out.inside, out.outside) == ((address_int(A), 5000), (address_int(E), 5000))
    assert (back.inside, back.outside) == ((address_int(A), 5000), (address_int(E), 6000))


def test_the_last_acknowledgment_of_the_near_side_is_kept_for_those_who_judge_resets(bench: Bench) -> None:
    bench.out("tcp")
    bench.back("tcp")
    bench.forward(LAN, from_lan(tcp(ack=1000, window=10)))
    bench.forward(LAN, from_lan(tcp(ack=2000, window=20)))
    bench.forward(LAN, from_lan(tcp("P", ack=9999, window=30)))  # without ACK the field says nothing
    bench.forward(WORLD, from_world(TCP(sport=53, dport=6000, flags="A", ack=3000)))
    near, far = sorted(bench.harvest(), key=lambda hits: not hits.near_sends)
    assert (near.acknowledgment, near.window) == (2000, 20)
    assert far.acknowledgment is None
    bench.forward(LAN, from_lan(tcp("P")))
    assert bench.harvest()[0].acknowledgment is None


def test_one_flow_is_settled_alone(bench: Bench) -> None:
    ends = {number: (address_int(A), number, address_int(E), 53) for number in (5000, 5001, 5002)}
    for number in (5000, 5001):
        bench.out(number=number)
        bench.forward(LAN, from_lan(udp(sport=number)))
    settled = bench.table.settle(LAN, 17, ends[5001], bench.now, True)
    assert settled is not None
    assert settled.packets == 1
    assert bench.table.settle(LAN, 17, ends[5001], bench.now, True) is None
    assert bench.table.settle(LAN, 17, ends[5002], bench.now, True) is None
    assert len(bench.harvest()) == 1


def test_a_harvest_in_parts_goes_round(make: Callable[..., Bench]) -> None:
    bench = make(limit=10)
    for number in range(5000, 5010):
        bench.out(number=number)
        bench.forward(LAN, from_lan(udp(sport=number)))
    parts = [bench.table.harvest(3, bench.now) for _ in range(4)]
    assert [len(part) for part in parts] == [3, 3, 3, 1]


def test_entries_that_nobody_used_are_freed_and_their_numbers_given_out_again(bench: Bench) -> None:
    first = bench.out()
    bench.now += FORGET_S * SECOND_NS
    bench.harvest()
    assert len(bench.table) == 1
    bench.now += SECOND_NS
    assert list(bench.table.live(bench.now)) == []
    bench.harvest()
    assert len(bench.table) == 0
    assert bench.forward(LAN, from_lan(udp())) is Punt.UNKNOWN
    assert bench.out(number=5001) == first


# A full table


def test_the_idle_give_way_those_of_one_packet_sooner_and_those_in_use_never(make: Callable[..., Bench]) -> None:
    bench = make(limit=3)
    assert [bench.out(number=number) for number in (1, 1, 2, 3)] == [0, 0, 1, 2]
    assert bench.out(number=4) == -1
    bench.now += ONCE_S * SECOND_NS + 1_000_000
    assert {bench.out(number=4), bench.out(number=5)} == {1, 2}, "entry 0 has seen two packets"
    assert bench.out(number=6) == -1
    bench.now += (IDLE_S - ONCE_S) * SECOND_NS
    kept = {bench.out(number=4), bench.out(number=5)}
    assert bench.out(number=6) == 0
    assert kept == {1, 2}
    assert len(bench.table) == 3


def test_a_flow_without_room_stays_unknown_and_the_others_as_they_were(make: Callable[..., Bench]) -> None:
    bench = make(limit=1)
    bench.out()
    assert bench.out(number=5001) == -1
    assert bench.forward(LAN, from_lan(udp(sport=5001))) is Punt.UNKNOWN
    repeated(bench.forward(LAN, from_lan(udp())))


def test_the_hand_looks_at_a_few_entries_and_goes_on_from_there(make: Callable[..., Bench]) -> None:
    bench = make(limit=2 * HAND_STEPS)
    for number in range(2 * HAND_STEPS):
        bench.out(number=1 + number)
    bench.now += ONCE_S * SECOND_NS + 1_000_000
    for number in range(HAND_STEPS):
        bench.out(number=1 + number)
    assert bench.out(number=9000) == -1
    assert bench.out(number=9000) == HAND_STEPS


@pytest.mark.parametrize(("port", "mac"), [(1024, b""), (0, b"12345")])
def test_an_impossible_port_is_our_own_mistake(bench: Bench, port: int, mac: bytes) -> None:
    with pytest.raises(ValueError, match="no port"):
        bench.table.set_port(port, mac, 1500, None)
