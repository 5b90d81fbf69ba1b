"""Section 1c of the checklist: ICMP errors through the NAT (RFC 5508), I3 to I7, on both egresses."""

from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import IPOption
from scapy.packet import Packet as ScapyPacket

from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import (
    HOST,
    ICMP,
    IP,
    TCP,
    UDP,
    A,
    B,
    E,
    F,
    Out,
    Raw,
    Scenario,
    scapy_sum,
)
from tests.conformance.quotes import LAYERS, body, name_of, one
from wire.drop import Drop

ROUTER = "198.51.100.1"  # on the way to E: it has no link, only something to say
ERRORS = [*((3, code) for code in range(16)), (11, 0), (11, 1), (12, 0)]
each_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


def at_router(out: Out) -> bytes:
    """The IP packet of a frame, as the next router has it in hand."""
    return out.frame[14:] if out.port in "LO" else out.frame


def with_ttl(packet: bytes, ttl: int) -> bytes:
    """The packet with another TTL, its header checksum made by scapy."""
    raw = bytearray(packet)
    raw[8] = ttl
    raw[10:12] = b"\0\0"
    raw[10:12] = scapy_sum(bytes(raw[: (raw[0] & 15) * 4])).to_bytes(2, "big")
    return bytes(raw)


def error(quoted: bytes, kind: int = 3, code: int = 3, *, source: str, to: str, rest: bytes = bytes(4)) -> IP:
    """An ICMP error that quotes `quoted`; `rest` is its second word."""
    message = struct.pack("!BBH", kind, code, 0) + rest + quoted
    message = message[:2] + scapy_sum(message).to_bytes(2, "big") + message[4:]
    return IP(src=source, dst=to, proto=1) / Raw(message)


def crowded(s: Scenario, layer: ScapyPacket) -> tuple[ScapyPacket, Out]:
    """A's packet towards E, sent when B has already taken the port and the IP identification that A would keep. Also as
    A built it."""
    s.inside(IP(src=B, dst=E, id=77) / layer / b"first")
    sent = IP(bytes(IP(src=A, dst=E, id=77) / layer / b"twenty bytes of data"))
    out = one(s.inside(sent))
    assert name_of(out) != 5000
    assert out.ip.id != 77
    return sent, out


def answer_to(layer: ScapyPacket, name: int) -> ScapyPacket:
    """The remote's answer to `layer` that came with the outside port or identifier `name`."""
    reply = layer.copy()
    if isinstance(layer, ICMP):
        reply.type, reply.id = layer.type - 8 if layer.type == 8 else layer.type + 1, name
    else:
        reply.sport, reply.dport = layer.dport, name
        if isinstance(layer, TCP):
            reply.flags, reply.ack, reply.seq = "SA", layer.seq + 1, 0x0A0B0C0D
    return reply


# Errors from outside: what of them is checked


def test_i3_an_error_with_a_bad_checksum_is_dropped(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    _, out = crowded(s, LAYERS["udp"])
    for at in (22, 24, 40, -1):  # the checksum itself, the second word, the quoted header, the quoted data
        bad = bytearray(bytes(error(at_router(out), source=ROUTER, to=s.X)))
        bad[at] ^= 1
        assert s.outside(IP(bytes(bad))) == []
        assert s.dropped == Drop.ICMP_CHECKSUM


def test_i3a_an_error_that_quotes_a_damaged_header_is_translated_and_counted(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    _, out = crowded(s, LAYERS["udp"])
    for count, at in enumerate((2, 8, 10), 1):
        quoted = bytearray(at_router(out))
        quoted[at] ^= 1
        (told,) = s.outside(error(bytes(quoted), source=ROUTER, to=s.X))
        inner = bytes(told.ip.payload)[8:28]
        assert told.ip.payload.payload.src == A
        assert at == 10 or inner[at] == quoted[at]
        assert scapy_sum(inner) != 0, "as wrong as it was"
        assert s.gateway.counters.damaged_quotes == count


def test_i3a_a_quote_whose_source_is_damaged_is_nobodys(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    _, out = crowded(s, LAYERS["udp"])
    quoted = bytearray(at_router(out))
    quoted[12] ^= 1
    assert s.outside(error(bytes(quoted), source=ROUTER, to=s.X)) == []
    assert s.dropped == Drop.ALIAS_QUOTE


@pytest.mark.parametrize("ihl", range(5, 16))
def test_i3b_options_in_the_quoted_header_are_skipped(make: MakeScenario, egress: str, ihl: int) -> None:
    s = make(egress)
    s.inside(IP(src=B, dst=E, id=76) / LAYERS["udp"])
    options = [IPOption(bytes([148, 4, 0, 0]) + bytes([1]) * (ihl * 4 - 24))] if ihl > 5 else []
    sent = IP(bytes(IP(src=A, dst=E, options=options) / LAYERS["udp"] / b"data"))
    assert sent.ihl == ihl
    out = one(s.inside(sent))
    back = one(s.outside(error(at_router(out), 11, 0, source=ROUTER, to=s.X)))
    assert (back.ip.src, back.ip.dst) == (ROUTER, A)
    assert body(back)[8:] == with_ttl(bytes(sent), 63)


def test_i3b_options_of_the_error_itself_are_kept(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    sent, out = crowded(s, LAYERS["udp"])
    told = error(at_router(out), source=ROUTER, to=s.X)
    told.options = [IPOption(bytes([148, 4, 0, 0, 1, 1, 1, 0]))]
    back = one(s.outside(told))
    assert bytes(back.ip)[20:28] == bytes([148, 4, 0, 0, 1, 1, 1, 0])
    assert body(back)[8:] == with_ttl(bytes(sent), 63)


@each_layer
def test_i3c_the_quoted_transport_checksum_may_be_wrong(make: MakeScenario, egress: str, layer: ScapyPacket) -> None:
    s = make(egress)
    sent, out = crowded(s, layer)
    at = 20 + {"UDP": 6, "TCP": 16}.get(type(layer).__name__, 2)
    quoted = bytearray(at_router(out))
    quoted[at : at + 2] = (int.from_bytes(quoted[at : at + 2], "big") ^ 0x0101).to_bytes(2, "big")
    back = one(s.outside(error(bytes(quoted), source=ROUTER, to=s.X)))
    expected = bytearray(with_ttl(bytes(sent), 63))
    told = bytearray(body(back)[8:])
    assert told[at : at + 2] != expected[at : at + 2], "a wrong checksum was repaired"
    told[at : at + 2] = expected[at : at + 2] = b"\0\0"
    assert told == expected


def test_i3c_a_quoted_udp_checksum_of_zero_stays_zero(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(IP(src=B, dst=E, id=76) / LAYERS["udp"])
    sent = IP(bytes(IP(src=A, dst=E, id=76) / UDP(sport=5000, dport=7000, chksum=0) / b"data"))
    out = one(s.inside(sent))
    back = one(s.outside(error(at_router(out), source=ROUTER, to=s.X)))
    assert body(back)[8:] == with_ttl(bytes(sent), 63)


MPLS = bytes([0x20, 0, 0, 0, 0, 8, 1, 1, 0x01, 0x23, 0x45, 0x01])  # RFC 4950: one label, in an RFC 4884 structure
MPLS = MPLS[:2] + scapy_sum(MPLS).to_bytes(2, "big") + MPLS[4:]


@each_layer
@pytest.mark.parametrize("kept_bytes", [28, 40, 48, 128])
def test_i3d_extensions_and_padding_are_kept(
    make: MakeScenario, egress: str, layer: ScapyPacket, kept_bytes: int
) -> None:
    """I3d: the quote is cut behind `kept_bytes`, padded with zeros to 128 bytes, an MPLS label stack follows."""
    s = make(egress)
    s.inside(IP(src=B, dst=E) / layer / b"first")
    sent = IP(bytes(IP(src=A, dst=E, id=77) / layer / bytes(range(1, 200))))
    out = one(s.inside(sent))
    quoted = at_router(out)[:kept_bytes].ljust(128, b"\0") + MPLS
    back = one(s.outside(error(quoted, 11, 0, source=ROUTER, to=s.X, rest=bytes([0, 32, 0, 0]))))
    told = body(back)
    assert told[4:8] == bytes([0, 32, 0, 0])
    assert told[-len(MPLS) :] == MPLS
    expected = with_ttl(bytes(sent), 63)[:kept_bytes].ljust(128, b"\0")
    assert told[8 : -len(MPLS)] == expected


def test_i3d_extensions_without_a_length_field_are_kept_too(make: MakeScenario, egress: str) -> None:
    """I3d: RFC 4884 5.1: routers older than the RFC put their extensions behind 128 bytes and leave the length zero."""
    s = make(egress)
    sent, out = crowded(s, LAYERS["udp"])
    back = one(s.outside(error(at_router(out).ljust(128, b"\0") + MPLS, 11, 0, source=ROUTER, to=s.X)))
    assert body(back)[8:] == with_ttl(bytes(sent), 63).ljust(128, b"\0") + MPLS


@pytest.mark.parametrize("length", [1, 4, 7, 31, 200, 255])
def test_i3d_a_length_field_that_cannot_be_is_not_believed(make: MakeScenario, egress: str, length: int) -> None:
    """I3d: below 128 bytes (RFC 4884 4), or beyond the end: old senders left anything in the unused bytes."""
    s = make(egress)
    sent, out = crowded(s, LAYERS["udp"])
    told = error(at_router(out), 11, 0, source=ROUTER, to=s.X, rest=bytes([0, length, 0, 0]))
    assert body(one(s.outside(told)))[8:] == with_ttl(bytes(sent), 63)


@each_layer
def test_i3_an_error_may_quote_no_more_than_eight_bytes_behind_the_header(
    make: MakeScenario, egress: str, layer: ScapyPacket
) -> None:
    s = make(egress)
    sent, out = crowded(s, layer)
    for size in (28, 29, 35, 36, 38, 39):  # 37 would cut TCP's checksum in half
        back = one(s.outside(error(at_router(out)[:size], source=ROUTER, to=s.X)))
        assert body(back)[8:] == with_ttl(bytes(sent), 63)[:size], size
    for size in (0, 1, 19, 20, 27):
        assert s.outside(error(at_router(out)[:size], source=ROUTER, to=s.X)) == [], size
        assert s.dropped == Drop.ALIAS_QUOTE


# Errors from outside: translated


@each_layer
def test_i4_an_error_from_outside_reaches_the_host_in_its_own_words(
    make: MakeScenario, egress: str, layer: ScapyPacket
) -> None:
    """I4, U12a, U12b: type, code and second word as sent, whoever sent it; the quote is the packet that A had sent, its
    port, identification and checksums too."""
    s = make(egress)
    sent, out = crowded(s, layer)
    for kind, code in ERRORS:
        rest = bytes([0, 0, 5, 0x78]) if (kind, code) == (3, 4) else bytes([20, 0, 0, 0]) if kind == 12 else bytes(4)
        for source in (ROUTER, E):
            told = IP(bytes(error(at_router(out), kind, code, source=source, to=s.X, rest=rest)))
            told.tos, told.id, told.ttl = 0xC0, 0x4321, 50
            del told.chksum
            back = one(s.outside(told))
            assert (back.port, back.ip.src, back.ip.dst) == ("L", source, A)
            assert (back.ip.tos, back.ip.id, back.ip.ttl) == (0xC0, 0x4321, 49)
            assert body(back)[:2] == bytes([kind, code])
            assert body(back)[4:8] == rest
            assert body(back)[8:] == with_ttl(bytes(sent), 63)


def test_i4_an_error_for_the_host_goes_to_the_host(make: MakeScenario) -> None:
    s = make("O")
    s.inside(IP(src=A, dst=E, id=77) / LAYERS["udp"])
    sent = IP(bytes(IP(src=HOST, dst=E, id=77) / LAYERS["udp"] / b"data"))
    out = one(s.inject("U", sent))
    assert (out.port, out.ip.src) == ("O", s.X)
    assert out.ip.id != 77
    assert name_of(out) != 5000
    back = one(s.outside(error(at_router(out), source=ROUTER, to=s.X)))
    assert (back.port, back.ip.src, back.ip.dst) == ("U", ROUTER, HOST)
    assert body(back)[8:] == with_ttl(bytes(sent), 63)


def test_i4_an_error_about_the_host_in_the_tunnel_passes_unchanged(make: MakeScenario) -> None:
    s = make("V")
    sent = IP(bytes(IP(src=HOST, dst=E) / LAYERS["udp"] / b"data"))
    out = one(s.inject("U", sent))
    back = one(s.outside(error(at_router(out), 11, 0, source=ROUTER, to=HOST)))
    assert (back.port, back.ip.src, back.ip.dst) == ("U", ROUTER, HOST)
    assert body(back)[8:] == with_ttl(bytes(sent), 63)


@each_layer
def test_i4_an_error_about_a_link_that_is_not_there_meets_silence(
    make: MakeScenario, egress: str, layer: ScapyPacket
) -> None:
    s = make(egress)
    stray = bytes(IP(src=s.X, dst=E) / layer / b"data")
    assert s.outside(error(stray, source=ROUTER, to=s.X)) == []
    assert s.dropped == Drop.ALIAS_NO_LINK
    foreign = bytes(IP(src=F, dst=E) / layer / b"data")
    assert s.outside(error(foreign, source=ROUTER, to=s.X)) == []
    assert s.dropped == Drop.ALIAS_QUOTE


def test_i4_an_error_about_another_protocols_port_meets_silence(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=7000))
    stray = bytes(IP(src=s.X, dst=E) / TCP(sport=5000, dport=7000))
    assert s.outside(error(stray, source=ROUTER, to=s.X)) == []


def test_i4_an_error_that_quotes_a_later_fragment_names_no_link(make: MakeScenario, egress: str) -> None:
    """I4: a later fragment shows no port; an identifier or port of zero must not stand in for it."""
    s = make(egress)
    s.inside(IP(src=A, dst=E) / ICMP(id=0))
    for protocol in (1, 6, 17):
        later = bytes(IP(src=s.X, dst=E, proto=protocol, frag=100) / bytes(64))
        assert s.outside(error(later, source=ROUTER, to=s.X)) == []


def test_i4_an_error_about_an_error_is_never_passed_on(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    for kind in (3, 4, 5, 11, 12):
        inner = bytes(IP(src=s.X, dst=E) / ICMP(type=kind) / bytes(IP(src=E, dst=s.X) / UDP(sport=7000, dport=5000)))
        assert s.outside(error(inner, source=ROUTER, to=s.X)) == []
        assert s.inside(error(bytes(IP(src=E, dst=A) / ICMP(type=kind) / bytes(28)), source=A, to=E)) == []


@pytest.mark.parametrize("ttl", [0, 1])
def test_i4_an_error_whose_time_is_up_goes_no_further_and_causes_no_error(
    make: MakeScenario, egress: str, ttl: int
) -> None:
    """I4, G3, G4: nothing leaves with a TTL of zero, and nothing is said about an error; the same from inside."""
    s = make(egress)
    _, out = crowded(s, LAYERS["udp"])
    told = error(at_router(out), source=ROUTER, to=s.X)
    told.ttl = ttl
    assert s.outside(told) == []
    assert s.dropped == Drop.IP_TTL
    received = at_router(one(s.outside(IP(src=E, dst=s.X) / UDP(sport=7000, dport=name_of(out)) / b"data")))
    answered = error(received, source=A, to=E)
    answered.ttl = ttl
    assert s.inside(answered) == []
    assert s.dropped == Drop.IP_TTL
    turned = error(bytes(IP(src=s.X, dst=A) / UDP(sport=5000, dport=5000) / b"data"), source=A, to=s.X)
    turned.ttl = ttl
    assert s.inside(turned) == []


def test_i4_an_error_with_df_that_does_not_fit_is_dropped_not_cut(make: MakeScenario) -> None:
    """I4, G27: DF is never cleared. From O (MTU 1500) to a LAN of 1000, and from the LAN into the tunnel."""
    s = make("O", replace=((f'mac = "{"02:00:00:00:c8:02"}"', 'mac = "02:00:00:00:c8:02"\nmtu = 1000'),))
    _, out = crowded(s, LAYERS["udp"])
    told = error(at_router(out).ljust(1400, b"\0"), source=ROUTER, to=s.X)
    told.flags = "DF"
    assert s.outside(told) == []
    assert s.dropped == Drop.IP_TOO_BIG
    told.flags = 0
    pieces = s.outside(told)
    assert [len(piece.ip) for piece in pieces] == [996, 452]


def test_i4_only_errors_that_a_nat_passes_are_passed(make: MakeScenario, egress: str) -> None:
    """I4, G16: source quench and redirect are dropped, from either side, and the link lives on (U12)."""
    s = make(egress)
    _, out = crowded(s, LAYERS["udp"])
    received = at_router(one(s.outside(IP(src=E, dst=s.X) / UDP(sport=7000, dport=name_of(out)) / b"data")))
    for kind in (4, 5):
        assert s.outside(error(at_router(out), kind, 1, source=ROUTER, to=s.X, rest=bytes([192, 168, 1, 9]))) == []
        assert s.dropped == Drop.ICMP_TYPE
        assert s.inside(error(received, kind, 1, source=A, to=E, rest=bytes([192, 168, 200, 9]))) == []
        assert s.dropped == Drop.ICMP_TYPE
    assert one(s.outside(IP(src=E, dst=s.X) / UDP(sport=7000, dport=name_of(out)))).ip.dst == A


def test_i4_an_error_about_an_address_only_link_is_translated(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    for protocol in (47, 50, 132, 33, 136):
        sent = IP(bytes(IP(src=A, dst=E, proto=protocol) / bytes(range(40))))
        out = one(s.inside(sent))
        back = one(s.outside(error(at_router(out), source=ROUTER, to=s.X)))
        assert back.ip.dst == A
        assert body(back)[8:] == with_ttl(bytes(sent), 63)
        answer = one(s.outside(IP(src=E, dst=s.X, proto=protocol) / bytes(range(40))))
        told = one(s.inside(error(at_router(answer), source=A, to=E)))
        assert (told.ip.src, told.ip.dst) == (s.X, E)
        assert body(told)[8:] == with_ttl(bytes(IP(src=E, dst=s.X, proto=protocol) / bytes(range(40))), 63)


def test_i4_an_error_is_not_filtered_by_its_source(make: MakeScenario, egress: str) -> None:
    """I4, U12a: under address-dependent filtering too, a router that A never spoke to may tell it something."""
    s = make(egress, toml='[alias]\nfiltering = "address-dependent"\n')
    sent, out = crowded(s, LAYERS["udp"])
    assert s.outside(IP(src=F, dst=s.X) / UDP(sport=7000, dport=name_of(out))) == []
    back = one(s.outside(error(at_router(out), source=ROUTER, to=s.X)))
    assert body(back)[8:] == with_ttl(bytes(sent), 63)


@pytest.mark.parametrize("filtering", ["endpoint-independent", "address-dependent"])
def test_i4_errors_about_a_static_forward_are_translated_both_ways(
    make: MakeScenario, egress: str, filtering: str
) -> None:
    forward = f'on = "{"tap1" if egress == "O" else "vpn"}"\nprotocol = "tcp"\noutside_port = 8080\ninside = "{A}:80"\n'
    s = make(egress, toml=f'[alias]\nfiltering = "{filtering}"\n[[alias.forward]]\n{forward}')
    asked = IP(bytes(IP(src=E, dst=s.X, id=5) / TCP(sport=7000, dport=8080, flags="S")))
    received = at_router(one(s.outside(asked)))
    assert IP(received).dst == A
    told = one(s.inside(error(received, source=A, to=E)))
    assert (told.ip.src, told.ip.dst) == (s.X, E)
    assert body(told)[8:] == with_ttl(bytes(asked), 63)
    answered = IP(bytes(IP(src=A, dst=E, id=6) / TCP(sport=80, dport=7000, flags="SA")))
    out = one(s.inside(answered))
    assert name_of(out) == 8080
    back = one(s.outside(error(at_router(out), 11, 0, source=ROUTER, to=s.X)))
    assert (back.ip.src, back.ip.dst) == (ROUTER, A)
    assert body(back)[8:] == with_ttl(bytes(answered), 63)


# Errors from inside


@each_layer
def test_i5_an_error_from_inside_shows_only_our_address(make: MakeScenario, egress: str, layer: ScapyPacket) -> None:
    """I5: the remote gets its own packet back, and neither A's address nor that of a router in the LAN."""
    s = make(egress)
    _, out = crowded(s, layer)
    reply = IP(bytes(IP(src=E, dst=s.X, id=99) / answer_to(layer, name_of(out)) / b"answer"))
    received = at_router(one(s.outside(reply)))
    for kind, code in ERRORS:
        for source in (A, "192.168.200.1"):
            rest = bytes([0, 0, 5, 0x78]) if (kind, code) == (3, 4) else bytes(4)
            told = one(s.inside(error(received, kind, code, source=source, to=E, rest=rest)))
            assert (told.port, told.ip.src, told.ip.dst) == (egress, s.X, E)
            assert body(told)[:2] == bytes([kind, code])
            assert body(told)[4:8] == rest
            assert body(told)[8:] == with_ttl(bytes(reply), 63)


def test_i5_the_hosts_error_shows_our_address_on_the_offload_port(make: MakeScenario) -> None:
    s = make("O")
    s.inject("U", IP(src=HOST, dst=E) / UDP(sport=5000, dport=7000))
    reply = IP(bytes(IP(src=E, dst=s.X) / UDP(sport=7000, dport=5000) / b"answer"))
    received = at_router(one(s.outside(reply)))
    told = one(s.inject("U", error(received, source=HOST, to=E)))
    assert (told.port, told.ip.src, told.ip.dst) == ("O", s.X, E)
    assert body(told)[8:] == with_ttl(bytes(reply), 63)


def test_i5_an_error_from_inside_about_nothing_we_carried_is_dropped(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    assert s.inside(error(bytes(IP(src=E, dst=A) / UDP(sport=7000, dport=5000)), source=A, to=E)) == []
    assert s.dropped == Drop.ALIAS_NO_LINK
    s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=7000))
    assert s.inside(error(bytes(IP(src=F, dst=A) / UDP(sport=7000, dport=5000)), source=A, to=E)) == []
    assert s.dropped == Drop.ALIAS_QUOTE


# Errors and timers


@each_layer
def test_i6_an_error_neither_refreshes_nor_ends_a_session(make: MakeScenario, egress: str, layer: ScapyPacket) -> None:
    """I6, U12, T10: the reply still passes after every error, and the session ends when it would have ended."""
    s = make(egress)
    lifetime = {UDP: 300, TCP: 240, ICMP: 60}[type(layer)]
    _, out = crowded(s, layer)
    s.advance(lifetime - 10)
    for kind, code in [*ERRORS, (4, 0), (5, 1)]:
        s.outside(error(at_router(out), kind, code, source=ROUTER, to=s.X))
    if not isinstance(layer, TCP):  # a SYN+ACK would begin another time
        s.advance(9.9)
        reply = IP(src=E, dst=s.X) / answer_to(layer, name_of(out))
        received = at_router(one(s.outside(reply)))
        one(s.inside(error(received, source=A, to=E)))
        s.advance(0.1)
        assert s.outside(reply) == []
    else:
        s.advance(10)
    assert s.outside(error(at_router(out), source=ROUTER, to=s.X)) == []
    assert s.dropped == Drop.ALIAS_NO_LINK


# Hairpin


@pytest.mark.parametrize("layer", [LAYERS["udp"], LAYERS["tcp"]], ids=["udp", "tcp"])
def test_i7_an_error_about_a_hairpinned_packet_turns_round_too(
    make: MakeScenario, egress: str, layer: ScapyPacket
) -> None:
    s = make(egress)
    _, out = crowded(s, layer)
    call = layer.copy()
    call.sport, call.dport = 6000, name_of(out)
    sent = IP(bytes(IP(src=B, dst=s.X, id=5) / call / b"hello"))
    received = one(s.inside(sent))
    assert (received.port, received.ip.src, received.ip.dst) == ("L", s.X, A)
    for source in (A, "192.168.200.1"):
        told = one(s.inside(error(at_router(received), source=source, to=s.X)))
        assert (told.port, told.ip.src, told.ip.dst) == ("L", s.X, B)
        assert body(told)[8:] == with_ttl(bytes(sent), 63)


def test_i7_an_error_about_the_hosts_hairpinned_packet_goes_to_the_host(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    _, out = crowded(s, LAYERS["udp"])
    sent = IP(bytes(IP(src=HOST, dst=s.X, id=5) / UDP(sport=6000, dport=name_of(out)) / b"hello"))
    received = one(s.inject("U", sent))
    assert (received.port, received.ip.src, received.ip.dst) == ("L", s.X, A)
    told = one(s.inside(error(at_router(received), source=A, to=s.X)))
    assert (told.port, told.ip.src, told.ip.dst) == ("U", s.X, HOST)
    assert body(told)[8:] == with_ttl(bytes(sent), 63)


def test_i7_an_error_to_our_address_about_nothing_meets_silence(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=7000))
    stray = bytes(IP(src=s.X, dst=A) / UDP(sport=6000, dport=5000))
    assert s.inside(error(stray, source=A, to=s.X)) == []
    assert s.dropped == Drop.ALIAS_NO_LINK


def test_i7_an_echo_request_to_our_address_from_inside_is_answered_by_us(make: MakeScenario, egress: str) -> None:
    """I7, G18: interface.md lets us answer it; it never reaches the host that owns the identifier outside."""
    s = make(egress)
    s.inside(IP(src=A, dst=E) / ICMP(id=77))
    back = one(s.inside(IP(src=B, dst=s.X) / ICMP(id=77, seq=3) / b"who"))
    assert (back.port, back.ip.src, back.ip.dst, back.ip[ICMP].type) == ("L", s.X, B, 0)
    assert s.inside(IP(src=B, dst=s.X) / ICMP(type=0, id=77, seq=3) / b"who") == []
