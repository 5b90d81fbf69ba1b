"""RFC 3022 4.1, RFC 1624: the rewriting, compared with packets that scapy builds afresh with the new names."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw
from scapy.utils import checksum as scapy_checksum

from alias import rewrite
from tests.alias.nat import A, E, checked, packet
from wire import ipv4
from wire.checksum import apply, delta16
from wire.gso import GSO_NONE, GsoHeader, complete
from wire.ipv4 import Packet
from wire.units import address_int, address_text

# All-zero and all-one words are where the two zeros of one's complement meet.
addresses = st.one_of(st.sampled_from([0, 1, 0xFFFF, 0xFFFF0000, 0xFFFFFFFF, 0x0000FFFF]), st.integers(0, 0xFFFFFFFF))
ports = st.one_of(st.sampled_from([1, 0xFFFF, 0x8000]), st.integers(1, 0xFFFF))
payloads = st.one_of(
    st.binary(max_size=64), st.integers(0, 40).map(bytes), st.integers(0, 40).map(lambda size: b"\xff" * size)
)


def ip(source: int, destination: int, options: bytes = b"") -> IP:
    fields = {"src": address_text(source), "dst": address_text(destination)}
    header = IP(**fields)
    if options:
        padded = options + bytes(-len(options) % 4)
        header = IP(bytes(IP(ihl=5 + len(padded) // 4, len=20 + len(padded), **fields))[:20] + padded)
        del header.chksum, header.len
    return header


def built(frame: ScapyPacket) -> bytes:
    return bytes(frame)


def fresh(data: bytes) -> Packet:
    """Parsed without the port check: the tests also use names that the walk refuses."""
    parsed = ipv4.parse(data)
    assert isinstance(parsed, Packet)
    ipv4.read_transport(parsed)
    return parsed


@given(addresses, addresses, ports, ports, addresses, ports, payloads, st.booleans(), st.sampled_from([TCP, UDP]))
def test_the_result_is_the_packet_with_the_new_names_built_afresh(
    source: int,
    destination: int,
    source_port: int,
    destination_port: int,
    address: int,
    port: int,
    payload: bytes,
    is_source: bool,
    transport: type[ScapyPacket],
) -> None:
    """P1, P2, P4, P6: byte for byte what scapy makes of the new addresses and ports, zeros included."""
    before = ip(source, destination) / transport(sport=source_port, dport=destination_port) / Raw(payload)
    moved = fresh(built(before))
    if is_source:
        rewrite.source(moved, address, port)
        after = ip(address, destination) / transport(sport=port, dport=destination_port) / Raw(payload)
        assert (moved.source, moved.source_port) == (address, port)
    else:
        rewrite.destination(moved, address, port)
        after = ip(source, address) / transport(sport=source_port, dport=port) / Raw(payload)
        assert (moved.destination, moved.destination_port) == (address, port)
    assert moved.data == built(after)


@given(addresses, addresses, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), payloads, st.sampled_from([0, 8, 13, 14]))
def test_icmp_queries_change_their_identifier_and_nothing_of_the_pseudo_header(
    source: int, address: int, old: int, new: int, payload: bytes, kind: int
) -> None:
    """P1: RFC 3022 4.2."""
    frame = ip(source, 1) / ICMP(type=kind, id=old, seq=9) / Raw(payload)
    moved = fresh(built(frame))
    rewrite.source(moved, address, new)
    sum_before, sum_after = (scapy_checksum(bytes(data[20:])) for data in (built(frame), moved.data))
    assert sum_before == sum_after == 0
    assert scapy_checksum(bytes(moved.data[:20])) == 0
    assert (moved.source_port, moved.destination_port) == (new, new)
    again = built(ip(address, 1) / ICMP(type=kind, id=new, seq=9) / Raw(payload))
    assert moved.data == again


def test_the_vector_of_rfc_1624() -> None:
    """P2: HC = DD2F, m = 5555, m' = 3285 -> 0000 (RFC 1141 gives FFFF)."""
    assert apply(0xDD2F, delta16(0x5555, 0x3285)) == 0x0000


def test_a_udp_checksum_of_zero_stays_zero() -> None:
    """P3."""
    moved = packet(IP(src=A, dst=E) / UDP(sport=5000, dport=53, chksum=0) / b"unchecked")
    rewrite.source(moved, address_int("192.168.1.2"), 5001)
    assert checked(moved.data)[UDP].chksum == 0
    rewrite.destination(moved, address_int(A), 1)
    assert checked(moved.data)[UDP].chksum == 0


def test_a_computed_udp_checksum_of_zero_is_sent_as_ones() -> None:
    """P4: the checklist's packet."""
    moved = packet(IP(src=A, dst=E) / UDP(sport=5100, dport=7000) / bytes.fromhex("d2e5"))
    rewrite.source(moved, address_int("192.168.1.2"), 5100)
    assert checked(moved.data)[UDP].chksum == 0xFFFF
    rewrite.source(moved, address_int(A), 5100)
    assert moved.data == bytes(IP(src=A, dst=E) / UDP(sport=5100, dport=7000) / bytes.fromhex("d2e5"))


def test_a_computed_tcp_checksum_of_zero_stays_zero() -> None:
    """P4."""
    outside = IP(src="192.168.1.2", dst=E) / TCP(sport=5100, dport=7000)
    wanted = IP(bytes(outside))[TCP].chksum  # as the urgent pointer it makes the sum all ones
    moved = packet(IP(src=A, dst=E) / TCP(sport=5100, dport=7000, urgptr=wanted))
    rewrite.source(moved, address_int("192.168.1.2"), 5100)
    assert checked(moved.data)[TCP].chksum == 0


@given(st.integers(1, 0xFFFF), st.sampled_from([TCP, UDP, ICMP]), st.sampled_from(["ip", "transport"]))
def test_a_wrong_checksum_stays_exactly_as_wrong(error: int, transport: type[ScapyPacket], where: str) -> None:
    """P5: never laundered."""
    frame = IP(src=A, dst=E) / (transport(id=7) if transport is ICMP else transport(sport=5000, dport=80)) / b"payload"
    data = bytearray(bytes(frame))
    field = 10 if where == "ip" else 20 + {TCP: 16, UDP: 6, ICMP: 2}[transport]
    right = int.from_bytes(data[field : field + 2], "big")
    wrong = right ^ error
    if wrong in (0, 0xFFFF) or right in (0, 0xFFFF):
        return  # the two zeros
    moved = packet(frame)
    moved.data[field : field + 2] = wrong.to_bytes(2, "big")
    rewrite.source(moved, address_int("192.168.1.2"), 5001)
    again = packet(frame)
    rewrite.source(again, address_int("192.168.1.2"), 5001)
    now_right, now_wrong = (int.from_bytes(data.data[field : field + 2], "big") for data in (again, moved))
    assert (now_wrong - now_right) % 0xFFFF == (wrong - right) % 0xFFFF


def test_nothing_else_is_touched() -> None:
    """P6: TTL, TOS, options, DF, identification, payload."""
    header = bytes(IP(src=A, dst=E, ihl=6, len=20 + 4 + 8 + 3, ttl=7, tos=0xBB, id=99, flags="DF", proto=17))[:20]
    udp = bytes(UDP(sport=5000, dport=53, len=11, chksum=0x1234)) + b"abc"
    raw = bytearray(header + b"\x01\x94\x02\x00"[:4] + udp)
    raw[10:12] = b"\0\0"
    raw[10:12] = scapy_checksum(bytes(raw[:24])).to_bytes(2, "big")
    moved = fresh(bytes(raw))
    rewrite.source(moved, address_int("192.168.1.2"), 5001)
    changed = {index for index, (old, new) in enumerate(zip(raw, moved.data, strict=True)) if old != new}
    assert changed <= {10, 11, 12, 13, 14, 15, 24, 25, 30, 31}
    assert scapy_checksum(bytes(moved.data[:24])) == 0


@given(addresses, addresses, addresses, ports, payloads, st.sampled_from([TCP, UDP]), st.booleans())
def test_a_partial_checksum_takes_the_address_alone(
    source: int, destination: int, address: int, port: int, payload: bytes, transport: type[ScapyPacket], both: bool
) -> None:
    """Pitfalls: completed by whoever puts it on a wire, it is the checksum that scapy computes."""
    body = bytes(transport(sport=1000, dport=2000, chksum=0)) + payload
    if transport is UDP:
        body = body[:4] + struct.pack("!H", len(body)) + body[6:]
    protocol, offset = (6, 16) if transport is TCP else (17, 6)
    frame = bytearray(bytes(IP(src=address_text(source), dst=address_text(destination), proto=protocol) / Raw(body)))
    pseudo = struct.pack("!IIBBH", source, destination, 0, protocol, len(body))
    partial = scapy_checksum(pseudo) ^ 0xFFFF
    frame[20 + offset : 22 + offset] = partial.to_bytes(2, "big")
    moved = fresh(bytes(frame))
    moved.gso = GsoHeader(True, GSO_NONE, 0, 0, 20, offset)
    rewrite.source(moved, address, port)
    new_destination, new_port = destination, 2000
    if both:
        new_destination, new_port = source, 77
        rewrite.destination(moved, new_destination, new_port)
    complete(moved.data, moved.gso)
    whole = transport(sport=port, dport=new_port) / Raw(payload)
    assert moved.data == bytes(IP(src=address_text(address), dst=address_text(new_destination)) / whole)


@pytest.mark.parametrize(("protocol", "field"), [(ipv4.UDPLITE, 6), (ipv4.DCCP, 6)])
def test_udp_lite_and_dccp_keep_a_right_checksum_and_their_ports(protocol: int, field: int) -> None:
    """P9: RFC 3828, RFC 4340: the checksum covers the addresses; ports are not ours to change there."""
    body = bytearray(struct.pack("!HHHH", 5000, 6000, 20 if protocol == ipv4.UDPLITE else 0x0500, 0) + b"twelve bytes")
    pseudo = struct.pack("!IIBBH", address_int(A), address_int(E), 0, protocol, len(body))
    body[field : field + 2] = scapy_checksum(pseudo + bytes(body)).to_bytes(2, "big")
    moved = fresh(bytes(IP(src=A, dst=E, proto=protocol) / Raw(bytes(body))))
    rewrite.source(moved, address_int("192.168.1.2"), 0)
    pseudo = struct.pack("!IIBBH", address_int("192.168.1.2"), address_int(E), 0, protocol, len(body))
    assert scapy_checksum(pseudo + bytes(moved.data[20:])) == 0
    assert moved.data[20:24] == body[:4]
    short = fresh(bytes(IP(src=A, dst=E, proto=protocol) / Raw(b"1234567")))
    rewrite.source(short, 1, 0)
    assert short.data[20:] == b"1234567"


@pytest.mark.parametrize("protocol", [ipv4.SCTP, ipv4.GRE, ipv4.ESP, 51, 2, 200])
def test_other_protocols_are_not_touched_behind_the_ip_header(protocol: int) -> None:
    """P8, P9."""
    body = bytes(range(40))
    moved = fresh(bytes(IP(src=A, dst=E, proto=protocol) / Raw(body)))
    rewrite.source(moved, address_int("192.168.1.2"), 4242)
    rewrite.destination(moved, address_int("192.168.1.3"), 4242)
    assert moved.data == bytes(IP(src="192.168.1.2", dst="192.168.1.3", proto=protocol) / Raw(body))


def test_later_fragments_change_their_ip_header_only() -> None:
    """F1."""
    body = bytes(range(40))
    moved = fresh(bytes(IP(src=A, dst=E, proto=6, frag=5, flags="MF") / Raw(body)))
    rewrite.source(moved, address_int("192.168.1.2"), 4242)
    assert moved.data == bytes(IP(src="192.168.1.2", dst=E, proto=6, frag=5, flags="MF") / Raw(body))


def test_first_fragments_change_ports_and_checksum() -> None:
    """F1: the checksum covers bytes that are elsewhere, and stays right for them."""
    whole = IP(src=A, dst=E, id=5) / UDP(sport=5000, dport=53) / Raw(bytes(range(200)))
    raw = bytes(whole)
    first = bytes(IP(src=A, dst=E, id=5, proto=17, flags="MF") / Raw(raw[20:100]))
    moved = fresh(first)
    rewrite.source(moved, address_int("192.168.1.2"), 4242)
    joined = bytes(IP(src="192.168.1.2", dst=E, id=5, proto=17) / Raw(bytes(moved.data[20:]) + raw[100:]))
    assert joined == bytes(IP(src="192.168.1.2", dst=E, id=5) / UDP(sport=4242, dport=53) / Raw(bytes(range(200))))


def test_icmp_errors_change_their_addresses_only() -> None:
    """I4, I5: what they quote is `alias.quote`'s."""
    frame = IP(src=A, dst=E) / ICMP(type=3, code=3) / Raw(bytes(IP(src=E, dst=A) / UDP()))
    moved = fresh(bytes(frame))
    rewrite.source(moved, address_int("192.168.1.2"), 4242)
    assert moved.data[20:] == bytes(frame)[20:]
