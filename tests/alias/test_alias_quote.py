"""RFC 5508 REQ-3 to 7: what an ICMP error quotes."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw
from scapy.utils import checksum as scapy_checksum

from alias import quote, rewrite
from alias.quote import NO_PORT, Quote
from tests.alias.nat import A, B, E, packet
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.units import address_int, address_text

X, ROUTER = "192.168.1.2", "198.51.100.1"
INSIDE, OUTSIDE = (address_int(A), 5000), (address_int(X), 40_001)


def error(
    inner: bytes, kind: int = 3, code: int = 3, source: str = ROUTER, destination: str = X, **fields: Any
) -> Packet:
    return packet(IP(src=source, dst=destination) / ICMP(type=kind, code=code, **fields) / Raw(inner))


def read(data: Packet) -> Quote:
    found = quote.read(data)
    assert isinstance(found, Quote), found
    return found


def resummed(raw: bytearray | bytes, start: int = 20) -> bytes:
    """The ICMP message of a packet with a checksum by scapy."""
    data = bytearray(raw)
    data[start + 2 : start + 4] = b"\0\0"
    data[start + 2 : start + 4] = scapy_checksum(bytes(data[start:])).to_bytes(2, "big")
    return bytes(data)


def sent(source: tuple[int, int], transport: ScapyPacket, options: bytes = b"") -> bytes:
    """A packet to E as it leaves with the source named; `transport` has its other fields."""
    if isinstance(transport, ICMP):
        transport.id = source[1]
    else:
        transport.sport = source[1]
    del transport.chksum
    raw = bytearray(bytes(IP(src=address_text(source[0]), dst=E, ttl=9, id=7) / transport / Raw(b"payload bytes")))
    if options:
        raw[20:20] = options
        raw[0] = 0x40 | (20 + len(options)) // 4
        raw[2:4] = len(raw).to_bytes(2, "big")
        raw[10:12] = b"\0\0"
        raw[10:12] = scapy_checksum(bytes(raw[: 20 + len(options)])).to_bytes(2, "big")
    return bytes(raw)


def transports() -> list[ScapyPacket]:
    return [UDP(dport=53), TCP(dport=80, seq=77, flags="PA"), ICMP(type=8, seq=3)]


@pytest.mark.parametrize("transport", transports(), ids=["udp", "tcp", "icmp"])
@pytest.mark.parametrize("options", [b"", b"\x01" * 4, b"\x94\x04\x00\x00", b"\x01" * 40], ids=len)
@pytest.mark.parametrize("shown_bytes", [8, 9, 16, 18, 19, 100])
def test_from_outside_the_quote_becomes_byte_for_byte_what_the_inside_had_sent(
    transport: ScapyPacket, options: bytes, shown_bytes: int
) -> None:
    """I4, U12b, T9, I3b: inner IP and transport checksums equal the original's, the outer one is right."""
    outside, inside = sent(OUTSIDE, transport, options), sent(INSIDE, transport, options)
    shown = 20 + len(options) + shown_bytes
    message = error(outside[:shown], code=1)
    found = read(message)
    assert (found.protocol, found.source, found.source_port) == (outside[9], *OUTSIDE)
    quote.rewrite_quote(message, found, source=INSIDE)
    rewrite.destination(message, INSIDE[0], 0)
    assert message.data == bytes(IP(src=ROUTER, dst=A) / ICMP(type=3, code=1) / Raw(inside[:shown]))


def test_a_quote_that_ends_within_a_checksum_leaves_the_half_of_it() -> None:
    """I4: half a checksum cannot be updated; the ICMP checksum is right all the same."""
    message = error(sent(OUTSIDE, TCP(dport=80))[: 20 + 17])
    half = message.data[-1]
    quote.rewrite_quote(message, read(message), source=INSIDE)
    assert message.data[-1] == half
    assert scapy_checksum(bytes(message.data[20:])) == 0


@pytest.mark.parametrize("source", [A, "192.168.200.77"], ids=["the host", "a router in between"])
def test_from_inside_the_quote_shows_the_outside_name(source: str) -> None:
    """I5."""
    received = IP(src=E, dst=A) / UDP(sport=53, dport=5000) / b"answer"
    message = error(bytes(received), source=source, destination=E)
    found = read(message)
    assert (found.destination, found.destination_port) == INSIDE
    quote.rewrite_quote(message, found, destination=OUTSIDE)
    rewrite.source(message, OUTSIDE[0], 0)
    outside = IP(src=E, dst=X) / UDP(sport=53, dport=40_001) / b"answer"
    assert message.data == bytes(IP(src=X, dst=E) / ICMP(type=3, code=3) / Raw(bytes(outside)))


def test_about_a_hairpinned_packet_both_names_are_turned() -> None:
    """I7: A answers B's hairpinned packet with 3/3; B gets it with its own packet inside."""
    seen_by_a = IP(src=X, dst=A) / UDP(sport=41_000, dport=5000) / b"x"
    sent_by_b = IP(src=B, dst=X) / UDP(sport=6000, dport=5000) / b"x"
    message = error(bytes(seen_by_a), source=A, destination=X)
    quote.rewrite_quote(message, read(message), source=(address_int(B), 6000), destination=(address_int(X), 5000))
    rewrite.source(message, address_int(X), 0)
    rewrite.destination(message, address_int(B), 0)
    assert message.data == bytes(IP(src=X, dst=B) / ICMP(type=3, code=3) / Raw(bytes(sent_by_b)))


def test_an_error_with_a_bad_checksum_is_refused() -> None:
    """I3."""
    message = error(sent(OUTSIDE, UDP(dport=53)))
    message.data[22] ^= 1
    assert quote.read(message) is Drop.ICMP_CHECKSUM


def test_a_fragmented_error_cannot_be_checked_and_is_translated() -> None:
    """I3, F8: the checksum stays right for the whole."""
    outside, inside = sent(OUTSIDE, UDP(dport=53)), sent(INSIDE, UDP(dport=53))
    whole = bytes(IP(src=ROUTER, dst=X, id=3) / ICMP(type=3, code=3) / Raw(outside))
    first = packet(IP(src=ROUTER, dst=X, id=3, flags="MF", proto=1) / Raw(whole[20 : 20 + 40]))
    quote.rewrite_quote(first, read(first), source=INSIDE)
    rest = whole[20 + 40 :]
    assert bytes(first.data[20:]) + rest == bytes(ICMP(type=3, code=3) / Raw(inside))


@pytest.mark.parametrize("damage", [1, 0x0100, 0xFFFE])
@pytest.mark.parametrize("transport", transports(), ids=["udp", "tcp", "icmp"])
def test_a_quoted_header_with_a_bad_checksum_is_translated_and_stays_as_wrong_as_it_was(
    transport: ScapyPacket, damage: int
) -> None:
    """I3a."""
    outside, inside = (bytearray(sent(names, transport)) for names in (OUTSIDE, INSIDE))
    for header in (outside, inside):
        checksum = int.from_bytes(header[10:12], "big") + damage
        header[10:12] = (checksum % 0xFFFF).to_bytes(2, "big")
    message = error(bytes(outside))
    found = read(message)
    assert found.is_damaged
    quote.rewrite_quote(message, found, source=INSIDE)
    assert message.data[20:] == bytes(ICMP(type=3, code=3) / Raw(bytes(inside)))


def test_a_quote_whose_header_is_right_is_not_damaged() -> None:
    """I3a."""
    assert not read(error(sent(OUTSIDE, UDP(dport=53)))).is_damaged


@pytest.mark.parametrize("transport", transports(), ids=["udp", "tcp", "icmp"])
def test_the_quoted_transport_checksum_is_not_validated(transport: ScapyPacket) -> None:
    """I3c: garbage stays garbage, by the same difference."""
    inner = bytearray(sent(OUTSIDE, transport))
    field = 20 + {17: 6, 6: 16, 1: 2}[inner[9]]
    inner[field] ^= 0x55
    message = error(bytes(inner))
    quote.rewrite_quote(message, read(message), source=INSIDE)
    right = bytearray(sent(INSIDE, transport))
    got = message.data[28:]
    assert got[field : field + 2] != right[field : field + 2]
    got[field : field + 2] = right[field : field + 2]
    assert got == right
    assert scapy_checksum(bytes(message.data[20:])) == 0


def test_a_quoted_udp_checksum_of_zero_stays_zero() -> None:
    """I4, P3."""
    message = error(bytes(IP(src=X, dst=E) / UDP(sport=40_001, dport=53, chksum=0) / b"x"))
    quote.rewrite_quote(message, read(message), source=INSIDE)
    assert bytes(message.data[28:]) == bytes(IP(src=A, dst=E) / UDP(sport=5000, dport=53, chksum=0) / b"x")


def test_a_quoted_identification_goes_back_to_the_hosts_own() -> None:
    """I4, R8."""
    message = error(bytes(IP(src=X, dst=E, id=0x4321) / UDP(sport=40_001, dport=53) / b"x"))
    found = read(message)
    assert found.identification == 0x4321
    quote.rewrite_quote(message, found, source=INSIDE, identification=0x1234)
    assert message.data[28:] == bytes(IP(src=A, dst=E, id=0x1234) / UDP(sport=5000, dport=53) / b"x")
    assert scapy_checksum(bytes(message.data[20:])) == 0


MPLS = bytes.fromhex("2000") + b"\0\0" + bytes.fromhex("00080101") + bytes.fromhex("00010140")


@pytest.mark.parametrize("transport", transports(), ids=["udp", "tcp", "icmp"])
@pytest.mark.parametrize("shown_bytes", [8, 21])
@pytest.mark.parametrize("length_words", [32, 0], ids=["RFC 4884", "before RFC 4884"])
def test_extensions_and_padding_are_not_touched(transport: ScapyPacket, shown_bytes: int, length_words: int) -> None:
    """I3d: 11/0 with a length of 32 words and an MPLS object. (Without a length the padding cannot be told from the
    packet: a TCP checksum in it may change, the extension does not.)"""
    extension = bytearray(MPLS)
    extension[2:4] = scapy_checksum(bytes(extension)).to_bytes(2, "big")
    outside, inside = (sent(names, transport)[: 20 + shown_bytes].ljust(128, b"\0") for names in (OUTSIDE, INSIDE))
    raw = bytearray(bytes(IP(src=ROUTER, dst=X) / ICMP(type=11, code=0) / Raw(outside + bytes(extension))))
    raw[25] = length_words
    message = packet(resummed(raw))
    quote.rewrite_quote(message, read(message), source=INSIDE)
    assert message.data[28 + 128 :] == extension
    assert message.data[25] == length_words
    assert scapy_checksum(bytes(message.data[20:])) == 0
    if length_words or not isinstance(transport, TCP):
        assert message.data[28 : 28 + 128] == inside


@pytest.mark.parametrize("length_words", [1, 5, 31, 40, 255])
def test_a_length_that_cannot_be_is_ignored(length_words: int) -> None:
    """I3d."""
    raw = bytearray(bytes(IP(src=ROUTER, dst=X) / ICMP(type=11, code=0) / Raw(sent(OUTSIDE, UDP(dport=53)))))
    raw[25] = length_words
    assert read(packet(resummed(raw))).source_port == 40_001


@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
def test_every_kind_of_error_shows_its_quote(kind: int) -> None:
    """I4: which of them pass is the walk's policy."""
    raw = bytearray(bytes(IP(src=ROUTER, dst=X) / ICMP(type=3) / Raw(sent(OUTSIDE, UDP(dport=53)))))
    raw[20] = kind
    assert read(packet(resummed(raw))).source == OUTSIDE[0]


def test_the_next_hop_mtu_is_untouched() -> None:
    """Q2, T9: 3/4 with MTU 1400."""
    inner = sent(OUTSIDE, TCP(dport=80))
    raw = bytearray(bytes(IP(src=ROUTER, dst=X) / ICMP(type=3, code=4) / Raw(inner[:28])))
    raw[26:28] = (1400).to_bytes(2, "big")
    message = packet(resummed(raw))
    quote.rewrite_quote(message, read(message), source=INSIDE)
    assert message.data[26:28] == (1400).to_bytes(2, "big")
    assert scapy_checksum(bytes(message.data[20:])) == 0


def test_a_quote_of_a_later_fragment_has_addresses_only() -> None:
    inner = bytes(IP(src=X, dst=E, proto=17, frag=100) / Raw(b"\x11" * 30))
    message = error(inner)
    found = read(message)
    assert (found.has_ports, found.source_port, found.destination_port) == (False, NO_PORT, NO_PORT)
    quote.rewrite_quote(message, found, source=INSIDE)
    assert message.data[28:] == bytes(IP(src=A, dst=E, proto=17, frag=100) / Raw(b"\x11" * 30))
    assert scapy_checksum(bytes(message.data[20:])) == 0


@pytest.mark.parametrize("protocol", [47, 50, 132, 2])
def test_a_quote_of_another_protocol_has_addresses_only(protocol: int) -> None:
    """P8."""
    for body in (b"", b"\x11" * 3, b"\x11" * 30):
        message = error(bytes(IP(src=X, dst=E, proto=protocol) / Raw(body)))
        quote.rewrite_quote(message, read(message), source=INSIDE)
        assert message.data[28:] == bytes(IP(src=A, dst=E, proto=protocol) / Raw(body))


def test_a_quoted_udp_lite_checksum_stays_right() -> None:
    """P9."""

    def udp_lite(source: str) -> bytes:
        body = bytearray(struct.pack("!HHHH", 9, 10, 0, 0) + b"payload.")
        pseudo = struct.pack("!IIBBH", address_int(source), address_int(E), 0, 136, len(body))
        body[6:8] = scapy_checksum(pseudo + bytes(body)).to_bytes(2, "big")
        return bytes(IP(src=source, dst=E, proto=136) / Raw(bytes(body)))

    message = error(udp_lite(X))
    quote.rewrite_quote(message, read(message), source=INSIDE)
    assert message.data[28:] == udp_lite(A)


@pytest.mark.parametrize("shown_bytes", [0, 19, 20, 27])
def test_a_quote_that_is_too_short_is_refused(shown_bytes: int) -> None:
    """I4: fewer than the header and eight bytes."""
    assert quote.read(error(sent(OUTSIDE, UDP(dport=53))[:shown_bytes])) is Drop.ALIAS_QUOTE


def test_quotes_of_errors_and_of_no_ipv4_are_refused() -> None:
    """G4."""
    inner = IP(src=X, dst=E) / ICMP(type=3) / Raw(bytes(IP() / UDP()))
    assert quote.read(error(bytes(inner))) is Drop.ALIAS_QUOTE
    assert quote.read(error(b"\x60" + bytes(60))) is Drop.ALIAS_QUOTE
    assert quote.read(error(b"\x4f" + bytes(30))) is Drop.ALIAS_QUOTE
    assert quote.read(packet(IP(src=X, dst=E) / ICMP(type=8))) is Drop.ALIAS_QUOTE


@given(st.binary(max_size=120), st.sampled_from([3, 4, 5, 11, 12]), st.booleans())
def test_no_bytes_raise(body: bytes, kind: int, is_first_fragment: bool) -> None:
    """P10: hostile input gives a value; and what is read can be rewritten."""
    raw = bytearray(bytes(IP(src=ROUTER, dst=X, proto=1) / Raw(bytes([kind, 0, 0, 0]) + body)))
    if is_first_fragment:
        raw[6] |= 0x20
    message = Packet(bytearray(resummed(raw)), None)
    _read_and_rewrite(message)


@given(st.data())
def test_no_damage_raises(data: st.DataObject) -> None:
    """P10: valid errors with a few bytes changed and a cut."""
    transport = data.draw(st.sampled_from(transports()))
    raw = bytearray(bytes(error(sent(OUTSIDE, transport).ljust(140, b"\0"), kind=11).data))
    for _ in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(20, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = bytearray(raw[: data.draw(st.integers(20, len(raw)))])
    if len(raw) >= 24:
        raw = bytearray(resummed(raw))
    _read_and_rewrite(Packet(raw, None))


def _read_and_rewrite(message: Packet) -> None:
    before = bytes(message.data)
    found = quote.read(message)
    if isinstance(found, Drop):
        assert message.data == before
        return
    quote.rewrite_quote(message, found, source=INSIDE, destination=(address_int(B), 77))
    assert len(message.data) == len(before)
    if not message.is_fragment:
        assert scapy_checksum(bytes(message.data[20:])) == 0
    header = message.data[found.ip_offset : found.transport_offset]
    assert (scapy_checksum(bytes(header)) == 0) is not found.is_damaged
    assert ipv4.parse(bytes(message.data[:20])) is not None
