"""ICMP errors: when never, what they quote, how many."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror

from icmp.errors import RateLimit, error, may_answer
from wire import ipv4
from wire.ipv4 import Packet
from wire.units import SECOND_NS, address_int

US, THEM = address_int("192.168.200.2"), address_int("192.168.200.10")


def parsed(packet: IP) -> Packet:
    read = ipv4.parse(bytes(packet))
    assert isinstance(read, Packet)
    return read


def udp(source: str = "192.168.200.10", destination: str = "203.0.113.5", **fields: object) -> IP:
    return IP(src=source, dst=destination, **fields) / UDP(sport=1, dport=2) / b"payload"


@pytest.mark.parametrize(
    "packet",
    [
        IP(src="192.168.200.10", dst="203.0.113.5") / ICMP(type=3) / bytes(28),
        IP(src="192.168.200.10", dst="203.0.113.5") / ICMP(type=11) / bytes(28),
        IP(src="192.168.200.10", dst="203.0.113.5") / ICMP(type=5) / bytes(28),
        udp(frag=1),
        udp(destination="255.255.255.255"),
        udp(destination="224.0.0.5"),
        udp(source="0.0.0.0"),
        udp(source="0.1.2.3"),
        udp(source="127.0.0.1"),
        udp(source="224.0.0.1"),
        udp(source="240.0.0.1"),
        udp(source="255.255.255.255"),
    ],
)
def test_g4_no_error_is_ever_sent_about(packet: IP) -> None:
    assert not may_answer(parsed(packet), group=False)


def test_g4_no_error_about_what_came_in_a_group_frame() -> None:
    assert may_answer(parsed(udp()), group=False)
    assert not may_answer(parsed(udp()), group=True)


@pytest.mark.parametrize("kind", [0, 8, 13])
def test_g5_an_error_about_a_query_is_allowed(kind: int) -> None:
    assert may_answer(parsed(IP(src="192.168.200.10", dst="203.0.113.5") / ICMP(type=kind)), group=False)


@pytest.mark.parametrize(("payload", "total"), [(1450, 576), (10, 20 + 8 + 20 + 8 + 10), (0, 56)])
def test_g6_the_quote_is_as_much_as_fits_in_576_bytes(payload: int, total: int) -> None:
    received = bytes(IP(src="192.168.200.10", dst="203.0.113.5", ttl=1) / UDP(sport=7, dport=9) / bytes(payload))
    message = error(11, 0, received, source=US, destination=THEM, identification=5)
    assert len(message) == IP(message).len == total
    assert message[28:] == received[: 576 - 28]


def test_g7_g9_a_plain_error_has_length_zero_precedence_six_and_right_checksums() -> None:
    received = bytes(IP(src="192.168.200.10", dst="203.0.113.5") / TCP(sport=7, dport=9))
    message = IP(error(3, 4, received, source=US, destination=THEM, identification=5, rest=1420))
    assert (message.tos, message.ttl, message[ICMP].type, message[ICMP].code) == (0xC0, 64, 3, 4)
    assert message[ICMP].nexthopmtu == 1420
    assert bytes(message[ICMP])[5] == 0
    assert message[IPerror].dst == "203.0.113.5"
    again = IP(bytes(message))
    del again.chksum, again[ICMP].chksum
    assert bytes(again) == bytes(message)


def test_g11_at_most_ten_errors_a_second_to_one_address_in_any_second() -> None:
    limit = RateLimit(1000)
    allowed = [turn for turn in range(300) if limit.allows(THEM, turn * SECOND_NS // 100)]
    assert len(allowed) == 30
    for turn in allowed:
        assert sum(turn <= other < turn + 100 for other in allowed) <= 10


def test_g11_the_limit_over_all_addresses_holds_and_zero_means_none() -> None:
    limit = RateLimit(50)
    assert sum(limit.allows(address, 0) for address in range(100)) == 50
    assert not limit.allows(1, SECOND_NS - 1)
    assert limit.allows(1, SECOND_NS)
    assert not RateLimit(0).allows(1, 0)


def test_a_flood_of_addresses_leaves_a_bounded_memory() -> None:
    limit = RateLimit(10**9)
    for address in range(20_000):
        limit.allows(address, address * 10)
    assert len(limit._by_destination) <= 4096
