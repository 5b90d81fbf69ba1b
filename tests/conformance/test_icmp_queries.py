"""Section 1c of the checklist: ICMP queries through the NAT (RFC 5508), and refusals. Rows I1, I2, I8 to I11."""

from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import IPOption

from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import (
    ADDRESS_L,
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
    scapy_sum,
)
from tests.conformance.quotes import LAYERS, body, name_of, one
from wire.drop import Drop

# Queries


@pytest.mark.parametrize("request_type", [8, 13, 15, 17])
def test_i1_a_query_gets_an_identifier_and_its_reply_comes_back(
    make: MakeScenario, egress: str, request_type: int
) -> None:
    s = make(egress)
    reply_type = {8: 0, 13: 14, 15: 16, 17: 18}[request_type]

    def query(kind: int, name: int) -> bytes:
        message = struct.pack("!BBHHH", kind, 0, 0, name, 1) + bytes(range(12))
        return message[:2] + scapy_sum(message).to_bytes(2, "big") + message[4:]

    kept = one(s.inside(IP(src=A, dst=E, proto=1) / Raw(query(request_type, 77))))
    other = one(s.inside(IP(src=B, dst=E, proto=1) / Raw(query(request_type, 77))))
    assert kept.ip.src == other.ip.src == s.X
    names = [struct.unpack_from("!H", body(out), 4)[0] for out in (kept, other)]
    assert names[0] == 77
    assert names[1] != 77
    for inside, name in ((A, names[0]), (B, names[1])):
        back = one(s.outside(IP(src=E, dst=s.X, proto=1) / Raw(query(reply_type, name))))
        assert (back.port, back.ip.src, back.ip.dst) == ("L", E, inside)
        assert body(back) == query(reply_type, 77)


def test_i1a_the_identifier_does_not_depend_on_the_remote(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    names = [name_of(one(s.inside(IP(src=A, dst=to) / ICMP(id=77, seq=n)))) for n, to in enumerate((E, F, E))]
    assert names == [77, 77, 77]
    taken = [name_of(one(s.inside(IP(src=B, dst=to) / ICMP(id=77, seq=n)))) for n, to in enumerate((E, F))]
    assert taken[0] == taken[1] != 77


def test_i1a_a_second_kind_of_query_shares_the_identifier(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(IP(src=B, dst=E) / ICMP(id=77))
    echo = name_of(one(s.inside(IP(src=A, dst=E) / ICMP(id=77))))
    stamp = LAYERS["timestamp"].copy()
    stamp.id = 77
    assert name_of(one(s.inside(IP(src=A, dst=E) / stamp))) == echo != 77


@pytest.mark.parametrize("identifier", [0, 1, 65535])
def test_i1_identifiers_at_the_edges_are_like_any_other(make: MakeScenario, egress: str, identifier: int) -> None:
    s = make(egress)
    assert name_of(one(s.inside(IP(src=A, dst=E) / ICMP(id=identifier) / b"odd"))) == identifier
    other = name_of(one(s.inside(IP(src=B, dst=E) / ICMP(id=identifier) / b"odd")))
    assert other != identifier
    for host, name in ((A, identifier), (B, other)):
        back = one(s.outside(IP(src=E, dst=s.X) / ICMP(type=0, id=name) / b"odd"))
        assert (back.ip.dst, back.ip[ICMP].id) == (host, identifier)


def test_i1_an_echo_of_any_length_keeps_its_data(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(IP(src=B, dst=E) / ICMP(id=77))
    for size in (0, 1, 2, 3, 55, 56, 1391, 1392):
        data = bytes(n * 7 & 255 for n in range(size))
        out = one(s.inside(IP(src=A, dst=E) / ICMP(id=77, seq=size) / data))
        assert body(out)[8:] == data
        back = one(s.outside(IP(src=E, dst=s.X) / ICMP(type=0, id=name_of(out), seq=size) / data))
        assert (body(back)[8:], back.ip[ICMP].id) == (data, 77)


def test_i1_a_reply_that_nobody_asked_for_meets_silence(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    for kind in (0, 14, 16, 18):
        assert s.outside(IP(src=E, dst=s.X) / ICMP(type=kind, id=77, ts_ori=0, ts_rx=0, ts_tx=0)) == []
        assert s.dropped == Drop.ALIAS_NO_LINK
    s.inside(IP(src=A, dst=E) / ICMP(id=77))
    assert s.outside(IP(src=E, dst=s.X) / ICMP(type=0, id=78)) == []
    assert s.inside(IP(src=B, dst=E) / ICMP(type=0, id=9)) == []
    assert s.dropped == Drop.ALIAS_NO_STATE


def test_i1_a_query_that_is_corrupt_stays_corrupt(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.checksums_matter = False
    s.inside(IP(src=B, dst=E) / ICMP(id=77))
    good = bytearray(bytes(IP(src=A, dst=E) / ICMP(id=77) / b"data"))
    good[30] ^= 0x10
    out = one(s.inside(IP(bytes(good))))
    assert name_of(out) != 77
    assert scapy_sum(body(out)) != 0


def test_i2_a_query_lives_for_sixty_seconds(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(IP(src=A, dst=E) / ICMP(id=77))
    s.advance(59)
    assert one(s.outside(IP(src=E, dst=s.X) / ICMP(type=0, id=77))).ip.dst == A
    s.advance(0.999)
    assert one(s.outside(IP(src=E, dst=s.X) / ICMP(type=0, id=77))).ip.dst == A
    s.advance(0.002)
    assert s.outside(IP(src=E, dst=s.X) / ICMP(type=0, id=77)) == []


def test_i2_another_request_starts_the_time_again(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    s.inside(IP(src=A, dst=E) / ICMP(id=77, seq=1))
    s.advance(50)
    s.inside(IP(src=A, dst=F) / ICMP(id=77, seq=2))
    s.advance(59)
    assert one(s.outside(IP(src=E, dst=s.X) / ICMP(type=0, id=77, seq=1))).ip.dst == A


def test_i2_the_time_of_a_query_is_configurable(make: MakeScenario, egress: str) -> None:
    s = make(egress, toml="[alias]\nicmp_timeout = 90\n")
    s.inside(IP(src=A, dst=E) / ICMP(id=77))
    s.advance(89)
    assert one(s.outside(IP(src=E, dst=s.X) / ICMP(type=0, id=77))).ip.dst == A
    s.advance(1.001)
    assert s.outside(IP(src=E, dst=s.X) / ICMP(type=0, id=77)) == []


# Refusals, and our own ICMP


def prohibited(outs: list[Out], sent: IP, source: str = ADDRESS_L) -> bool:
    told = one(outs)
    assert (told.port, told.ip.src, told.ip.dst) == ("L", source, sent.src)
    assert body(told)[:2] == bytes([3, 13])
    assert body(told)[8:] == bytes(sent)
    return True


@pytest.mark.parametrize(
    "limit", ["max_links = 3", "max_links_per_host = 3"], ids=["of all links", "of the links of a host"]
)
def test_i8_a_host_that_gets_no_link_hears_3_13(make: MakeScenario, egress: str, limit: str) -> None:
    """I8, C4: the packet is dropped, live links stay, errors are limited to ten a second for each sender."""
    s = make(egress, toml=f"[alias]\n{limit}\n")
    for layer in (UDP(sport=5001, dport=7000), TCP(sport=5001, dport=7000, flags="S"), ICMP(id=5001)):
        one(s.inside(IP(src=A, dst=E) / layer))
    sent = [IP(bytes(IP(src=A, dst=E) / UDP(sport=5010 + n, dport=7000) / b"data")) for n in range(20)]
    told = [s.inside(packet) for packet in sent]
    assert all(prohibited(outs, packet) for outs, packet in zip(told[:10], sent[:10], strict=True))
    assert told[10:] == [[]] * 10
    s.advance(1)
    assert prohibited(s.inside(sent[0]), sent[0])
    for layer in (UDP(sport=5001, dport=7000), TCP(sport=5001, dport=7000, flags="S"), ICMP(id=5001)):
        one(s.inside(IP(src=A, dst=F) / layer))
    from_b = IP(bytes(IP(src=B, dst=E) / UDP(sport=5001, dport=7000)))
    if "per_host" in limit:
        assert one(s.inside(from_b)).port == egress
    else:
        assert prohibited(s.inside(from_b), from_b)


def test_i8_a_port_class_without_a_free_port_is_answered_with_3_13(make: MakeScenario, egress: str) -> None:
    """I8, U3a: all of 1 to 1023 are taken; port 500 of another host gets none of the upper class instead."""
    s = make(egress)
    s.checksums_matter = False  # a thousand times the same packet
    frame = bytearray(bytes(IP(src=A, dst=E) / UDP(sport=1, dport=7000, chksum=0)))
    link = bytes.fromhex("02000000c80202aa0000000a0800")
    for port in range(1, 1024):
        frame[20:22] = port.to_bytes(2, "big")
        assert len(s.inside(link + bytes(frame))) == 1
    sent = IP(bytes(IP(src=B, dst=E) / UDP(sport=500, dport=7000)))
    assert prohibited(s.inside(sent), sent)
    assert one(s.inside(IP(src=B, dst=E) / UDP(sport=1024, dport=7000))).ip[UDP].sport == 1024


def test_i9_a_muted_port_sends_no_errors_but_still_answers_echo(make: MakeScenario, egress: str) -> None:
    s = make(egress, toml='[icmp]\nmute = ["tap0"]\n[alias]\nmax_links = 1\n')
    one(s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=7000)))
    assert s.inside(IP(src=B, dst=E) / UDP(sport=5001, dport=7000)) == []
    assert s.dropped == Drop.ALIAS_TABLE_FULL
    assert s.inside(IP(src=A, dst=E, ttl=1) / UDP(sport=5000, dport=7000)) == []
    assert s.dropped == Drop.IP_TTL
    assert s.inside(IP(src=A, dst=ADDRESS_L) / UDP(sport=5000, dport=7000)) == []
    assert s.inside(IP(src=A, dst="10.1.1.1") / UDP(sport=5000, dport=7000)) == []
    assert one(s.inside(IP(src=A, dst=ADDRESS_L) / ICMP(id=1))).ip[ICMP].type == 0
    told = one(s.outside(IP(src=E, dst=s.X, ttl=1) / UDP(sport=7000, dport=5000)))
    assert body(told)[:2] == bytes([11, 0]), "another port is not muted"


def test_i10_the_messages_that_a_nat_must_send_are_sent_and_no_others(make: MakeScenario, egress: str) -> None:
    """I10: 3/x, 11/0, 12/0, echo replies; no answer to information, mask and timestamp requests, no source quench."""
    s = make(egress)
    for sent, wanted in (
        (IP(src=A, dst=ADDRESS_L) / UDP(sport=5000, dport=7000), (3, 3)),
        (IP(src=A, dst=ADDRESS_L, proto=200) / bytes(8), (3, 2)),
        (IP(src=A, dst="10.1.1.1") / UDP(sport=5000, dport=7000), (3, 0)),
        (IP(src=A, dst=E, ttl=1) / UDP(sport=5000, dport=7000), (11, 0)),
        (IP(src=A, dst=E, options=[IPOption(bytes([148, 1, 0, 0]))]) / UDP(sport=5000, dport=7000), (12, 0)),
        (IP(src=A, dst=ADDRESS_L) / ICMP(id=1), (0, 0)),
    ):
        told = one(s.inside(sent))
        assert (told.port, told.ip.src, told.ip.dst) == ("L", ADDRESS_L, A)
        assert tuple(body(told)[:2]) == wanted
    for kind in (4, 5, 13, 15, 17):
        layer = ICMP(type=kind, id=1, ts_ori=0, ts_rx=0, ts_tx=0)
        assert s.inside(IP(src=A, dst=ADDRESS_L) / layer) == []
        assert s.outside(IP(src=E, dst=s.X) / layer) == []


def test_i11_other_types_are_dropped_and_break_nothing(make: MakeScenario, egress: str) -> None:
    """I11: all 256 types, empty and with a body, both ways: only queries and translated errors pass."""
    s = make(egress)
    one(s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=7000)))
    known = {0, 3, 8, 11, 12, 13, 14, 15, 16, 17, 18}
    for kind in range(256):
        for rest in (bytes(6), bytes(range(64))):
            message = bytes([kind, 0, 0, 0]) + rest
            message = message[:2] + scapy_sum(message).to_bytes(2, "big") + message[4:]
            if kind not in known:
                assert s.outside(IP(src=E, dst=s.X, proto=1) / Raw(message)) == []
                assert s.inside(IP(src=A, dst=E, proto=1) / Raw(message)) == []
                assert s.inside(IP(src=A, dst=s.X, proto=1) / Raw(message)) == []
    for size in range(8):
        assert s.outside(IP(src=E, dst=s.X, proto=1) / Raw(bytes(size))) == []
        assert s.inside(IP(src=A, dst=E, proto=1) / Raw(bytes(size))) == []
        assert s.dropped == Drop.TRANSPORT_SHORT
    assert one(s.outside(IP(src=E, dst=s.X) / UDP(sport=7000, dport=5000))).ip.dst == A
