"""Visitors of a static forward are answered by the port that they came by, wherever the table would send packets."""

from __future__ import annotations

from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import ADDRESS_O, ADDRESS_V, HOST, A, E
from tests.conformance.packets import error, only, raw_ip, tcp, udp

FOREIGN = "8.8.8.8"  # not offloaded: the table sends packets for it into the tunnel
FORWARDS = """
[[alias.forward]]
on = "tap1"
protocol = "tcp"
outside_port = 8080
inside = "192.168.200.10:80"
[[alias.forward]]
on = "vpn"
protocol = "udp"
outside_port = 5353
inside = "192.168.200.10:53"
[[alias.forward]]
on = "tap1"
protocol = "tcp"
outside_port = 2222
inside = "192.168.192.211:22"
"""


def test_m1_a_visitor_from_the_tunnels_side_of_the_table_is_answered_by_tap1(make: MakeScenario) -> None:
    s = make("O", FORWARDS)
    asked = only(s.inject("O", tcp((FOREIGN, 9), (ADDRESS_O, 8080), "S", seq=1)))
    assert (asked.port, asked.ip.dst, asked.ip.dport) == ("L", A, 80)
    answer = only(s.inject("L", tcp((A, 80), (FOREIGN, 9), "SA", seq=7, ack=2)))
    assert (answer.port, answer.ip.src, answer.ip.sport) == ("O", ADDRESS_O, 8080)
    refusal = only(s.inject("L", error(A, FOREIGN, 3, 3, raw_ip(asked))))
    assert (refusal.port, refusal.ip.src) == ("O", ADDRESS_O)
    s.advance(7439)
    late = only(s.inject("L", tcp((A, 80), (FOREIGN, 9), "A", seq=8, ack=2)))
    assert (late.port, late.ip.sport) == ("O", 8080)
    s.advance(2)
    # The exchange is over: the table decides again.
    assert only(s.inject("L", tcp((A, 80), (FOREIGN, 9), "A", seq=8, ack=2))).port == "V"


def test_m1_a_visitor_of_a_forward_in_the_tunnel_is_answered_there_though_it_is_offloaded(make: MakeScenario) -> None:
    s = make("O", FORWARDS)
    assert only(s.inject("V", udp((E, 9), (ADDRESS_V, 5353)))).ip.dport == 53
    answer = only(s.inject("L", udp((A, 53), (E, 9))))
    assert (answer.port, answer.ip.src, answer.ip.sport) == ("V", ADDRESS_V, 5353)


def test_m1_the_hosts_own_forward_is_answered_by_tap1_too(make: MakeScenario) -> None:
    s = make("O", FORWARDS)
    assert only(s.inject("O", tcp((FOREIGN, 9), (ADDRESS_O, 2222), "S"))).port == "U"
    answer = only(s.inject("U", tcp((HOST, 22), (FOREIGN, 9), "SA", ack=1)))
    assert (answer.port, answer.ip.src, answer.ip.sport) == ("O", ADDRESS_O, 2222)


def test_m1_what_the_inside_begins_goes_by_the_table(make: MakeScenario) -> None:
    s = make("O", FORWARDS)
    s.inject("O", tcp((FOREIGN, 9), (ADDRESS_O, 8080), "S"))
    assert only(s.inject("L", tcp((A, 80), (FOREIGN, 10), "S"))).port == "V"
    assert only(s.inject("L", tcp((A, 81), (FOREIGN, 9), "S"))).port == "V"


def test_a_stranger_who_writes_to_a_link_pulls_nothing_out_of_the_tunnel(make: MakeScenario) -> None:
    s = make("O")
    mapped = only(s.inject("L", udp((A, 5000), (E, 9)))).ip.sport
    assert only(s.inject("O", udp((FOREIGN, 9), (ADDRESS_O, mapped)))).port == "L"
    assert only(s.inject("L", udp((A, 5000), (FOREIGN, 9)))).port == "V"


def test_m1_a_forward_that_a_reload_takes_away_forgets_its_visitors(make: MakeScenario) -> None:
    s = make("O", FORWARDS)
    s.inject("O", tcp((FOREIGN, 9), (ADDRESS_O, 8080), "S"))
    s.reload(FORWARDS)
    assert only(s.inject("L", tcp((A, 80), (FOREIGN, 9), "SA", ack=1))).port == "O"
    s.reload()
    assert only(s.inject("L", tcp((A, 80), (FOREIGN, 9), "A"))).port == "V"


def test_the_memory_of_visitors_is_bounded(make: MakeScenario) -> None:
    s = make("O", FORWARDS)
    for visitor in range(4200):
        s.inject("O", tcp((f"8.8.{visitor >> 8}.{visitor & 255}", 9), (ADDRESS_O, 8080), "S"))
    assert len(s.gateway.decision.returns) == 4096
    assert only(s.inject("L", tcp((A, 80), ("8.8.0.5", 9), "SA", ack=1))).port == "V"
    assert only(s.inject("L", tcp((A, 80), ("8.8.16.5", 9), "SA", ack=1))).port == "O"
