"""RFC 4787 as far as the table shows it: mapping, timers, filtering, hairpin."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP

from alias.types import Egress
from tests.alias.nat import BOTH, HOST, A, B, C, E, F, Nat, X, passed, udp
from wire.drop import Drop
from wire.ipv4 import UDP as UDP_PROTOCOL
from wire.units import address_int, seconds_ns

both_egresses = pytest.mark.parametrize("egress", BOTH, ids=lambda egress: egress.label)


def asks(inside: str, port: int, remote: str = E, remote_port: int = 7000) -> IP:
    return IP(src=inside, dst=remote) / UDP(sport=port, dport=remote_port) / b"question"


def answers(nat: Nat, port: int, remote: str = E, remote_port: int = 7000) -> IP:
    return IP(src=remote, dst=nat.x) / UDP(sport=remote_port, dport=port) / b"answer"


@both_egresses
def test_one_inside_endpoint_has_one_outside_port_for_every_remote(egress: Egress) -> None:
    """U1: endpoint-independent mapping."""
    nat = Nat(egress)
    seen = [
        passed(nat.out(asks(A, 5000, remote, port)))[UDP].sport for remote, port in ((E, 1), (E, 2), (F, 1), (F, 65535))
    ]
    assert seen == [5000] * 4
    assert len(nat.links()) == 1


def test_each_egress_has_its_own_address_and_its_own_ports() -> None:
    """U2, R6: X of one egress never shows on the other."""
    nat = Nat()
    for egress in (*BOTH, *BOTH):
        nat.egress, nat.x = egress, X[egress]
        assert passed(nat.out(asks(A, 5000)))[IP].src == X[egress]
        assert passed(nat.out(asks(B, 5000)))[IP].src == X[egress]
    assert sorted((link.egress, link.inside == address_int(A)) for link in nat.links()) == [
        (Egress.TAP1, False),
        (Egress.TAP1, True),
        (Egress.VPN, False),
        (Egress.VPN, True),
    ]


@both_egresses
def test_two_inside_endpoints_never_share_a_port(egress: Egress) -> None:
    """U3: no overloading, even towards different remotes."""
    nat = Nat(egress)
    assert passed(nat.out(asks(A, 5000, E)))[UDP].sport == 5000
    other = passed(nat.out(asks(B, 5000, E)))[UDP].sport
    assert other != 5000
    assert passed(nat.out(asks(B, 5000, F)))[UDP].sport == other
    assert passed(nat.back(answers(nat, other)))[IP].dst == B
    assert passed(nat.back(answers(nat, 5000)))[IP].dst == A


@both_egresses
def test_an_idle_link_lives_for_300_seconds_by_default(egress: Egress) -> None:
    """U5."""
    nat = Nat(egress)
    nat.out(asks(A, 5000))
    nat.at(119)
    passed(nat.back(answers(nat, 5000)))
    nat.at(299)
    passed(nat.back(answers(nat, 5000)))
    nat.at(301)
    assert nat.back(answers(nat, 5000)) is Drop.ALIAS_NO_LINK
    assert [t for t, _ in nat.ended] == [300]


def test_the_udp_timer_is_configurable() -> None:
    """U5."""
    nat = Nat(udp_timeout_ns=seconds_ns(120))
    nat.out(asks(A, 5000))
    nat.at(119)
    passed(nat.back(answers(nat, 5000)))
    nat.at(121)
    assert nat.back(answers(nat, 5000)) is Drop.ALIAS_NO_LINK


def test_a_link_has_expired_at_its_time_even_where_nobody_called_tick() -> None:
    """U5."""
    nat = Nat()
    nat.out(asks(A, 5000))
    nat.now += seconds_ns(300)
    assert nat.back(answers(nat, 5000)) is Drop.ALIAS_NO_LINK
    assert nat.links() == []
    nat.out(asks(A, 5000))
    nat.now += seconds_ns(300) - 1
    passed(nat.back(answers(nat, 5000)))
    nat.now += 1
    assert passed(nat.out(asks(A, 5000)))[UDP].sport == 5000
    assert len(nat.links()) == 1


@both_egresses
def test_a_packet_from_inside_to_any_remote_refreshes(egress: Egress) -> None:
    """U6."""
    nat = Nat(egress)
    nat.out(asks(A, 5000, E))
    nat.at(200)
    nat.out(asks(A, 5000, F))
    nat.at(400)
    passed(nat.back(answers(nat, 5000, E)))


def asked(nat: Nat, port: int = 53, number: int = 5000) -> int:
    """A asks a remote's port and is answered; the outside port."""
    question = passed(nat.out(IP(src=A, dst=E) / UDP(sport=number, dport=port)))
    passed(nat.back(IP(src=E, dst=nat.x) / UDP(sport=port, dport=question[UDP].sport)))
    return int(question[UDP].sport)


@pytest.mark.parametrize("port", [53, 123])
def test_a_question_that_was_answered_keeps_its_link_for_15_seconds(port: int) -> None:
    """U5a."""
    nat = Nat()
    asked(nat, port)
    nat.at(14)
    asked(nat, port)
    nat.at(28.9)
    assert nat.link().outside_port == 5000
    nat.at(29)
    assert nat.links() == []
    assert [when for when, _ in nat.ended] == [29]


def test_the_port_of_a_question_rests_as_any_other_port_does() -> None:
    """U5a, C3."""
    nat = Nat()
    asked(nat)
    nat.at(15)
    assert passed(nat.out(IP(src=B, dst=E) / UDP(sport=5000, dport=53)))[UDP].sport != 5000
    assert asked(nat) == 5000, "the endpoint that had it"


def test_a_question_that_nobody_answers_keeps_its_link_as_any_other_packet_does() -> None:
    """U5a: nor does a stranger's packet shorten its life."""
    nat = Nat()
    passed(nat.out(IP(src=A, dst=E) / UDP(sport=5000, dport=53)))
    passed(nat.back(IP(src=F, dst=nat.x) / UDP(sport=7000, dport=5000)))
    nat.at(299)
    assert nat.link().outside_port == 5000


@pytest.mark.parametrize("is_first", [True, False])
def test_a_link_that_has_sent_to_another_port_lives_for_300_seconds(is_first: bool) -> None:
    """U5a: before the question or after the answer."""
    nat = Nat()
    other = IP(src=A, dst=F) / UDP(sport=5000, dport=443)
    if is_first:
        passed(nat.out(other))
    asked(nat)
    if not is_first:
        passed(nat.out(other))
    asked(nat)
    nat.at(299)
    assert nat.link().outside_port == 5000
    nat.at(300)
    assert nat.links() == []


def test_30_questions_a_second_with_ports_of_their_own_are_never_refused() -> None:
    """U5a: for a thousand seconds, with the limits of the default configuration."""
    nat = Nat()
    remote, outside = address_int(E), address_int(nat.x)
    for number in range(30_000):
        if number % 30 == 0:
            nat.at(number / 30)
        link = nat.aliases.outbound(nat.egress, udp(address_int(A), 1024 + number, remote, 53), nat.now)
        assert not isinstance(link, Drop), number
        assert nat.aliases.inbound(nat.egress, udp(remote, 53, outside, link.outside_port), nat.now) is link
    assert len(nat.aliases) <= 15 * 30


def test_a_fast_path_tells_of_answers_and_of_further_questions() -> None:
    """U5a."""
    nat = Nat()
    passed(nat.out(IP(src=A, dst=E) / UDP(sport=5000, dport=53)))
    link = nat.link()
    for number, outbound in enumerate([False, True, False]):
        nat.at(number)
        nat.aliases.confirm(
            link, nat.now, outbound=outbound, packets=1, size_bytes=60, remote=address_int(E), remote_port=53
        )
    assert link.expires_ns == seconds_ns(15) + nat.now - seconds_ns(1)


@pytest.mark.parametrize(("refreshes", "at_301"), [(False, Drop.ALIAS_NO_LINK), (True, None)])
def test_packets_from_outside_refresh_only_where_configured(refreshes: bool, at_301: Drop | None) -> None:
    """U6a, R5."""
    nat = Nat(refresh_inbound=refreshes)
    nat.out(asks(A, 5000))
    nat.at(250)
    passed(nat.back(answers(nat, 5000)))
    nat.at(301)
    answer = nat.back(answers(nat, 5000))
    assert (answer if isinstance(answer, Drop) else None) is at_301


@both_egresses
def test_every_remote_may_answer_by_default(egress: Egress) -> None:
    """U8: endpoint-independent filtering."""
    nat = Nat(egress)
    nat.out(asks(A, 5000, E))
    assert passed(nat.back(answers(nat, 5000, F, 4242)))[IP].dst == A


@both_egresses
def test_only_remotes_that_were_sent_to_may_answer_with_address_dependent_filtering(egress: Egress) -> None:
    """U8."""
    nat = Nat(egress, filtering="address-dependent")
    nat.out(asks(A, 5000, E))
    assert nat.back(answers(nat, 5000, F)) is Drop.ALIAS_FILTERED
    passed(nat.back(answers(nat, 5000, E, 4242)))
    nat.out(asks(A, 5000, F))
    passed(nat.back(answers(nat, 5000, F, 4242)))
    passed(nat.back(answers(nat, 5000, E)))


def test_a_filtered_packet_refreshes_nothing_and_counts_nothing() -> None:
    nat = Nat(filtering="address-dependent", refresh_inbound=True)
    nat.out(asks(A, 5000, E))
    nat.at(100)
    nat.back(answers(nat, 5000, F))
    assert (nat.link().packets, nat.link().expires_ns) == (1, nat.now + seconds_ns(200))


@both_egresses
@pytest.mark.parametrize("filtering", ["endpoint-independent", "address-dependent"])
def test_an_inside_host_reaches_another_by_its_outside_name_and_shows_its_own(egress: Egress, filtering: str) -> None:
    """U9, U9a: hairpin, not filtered."""
    nat = Nat(egress, filtering=filtering)
    nat.out(asks(A, 5000))
    nat.out(asks(B, 5000))
    other = next(link.outside_port for link in nat.links() if link.inside == address_int(B))
    seen = passed(nat.turn(asks(B, 5000, nat.x, 5000)))
    assert (seen.src, seen[UDP].sport, seen.dst, seen[UDP].dport) == (nat.x, other, A, 5000)
    reply = passed(nat.turn(asks(A, 5000, nat.x, other)))
    assert (reply.src, reply[UDP].sport, reply.dst, reply[UDP].dport) == (nat.x, 5000, B, 5000)


@both_egresses
def test_an_inside_host_reaches_itself_by_its_outside_name(egress: Egress) -> None:
    """U9."""
    nat = Nat(egress)
    nat.out(asks(A, 5000))
    seen = passed(nat.turn(asks(A, 5000, nat.x, 5000)))
    assert (seen.src, seen[UDP].sport, seen.dst, seen[UDP].dport) == (nat.x, 5000, A, 5000)
    assert len(nat.links()) == 1


@both_egresses
def test_behaviour_stays_the_same_with_95_percent_of_the_ports_in_use_and_after_expiry(egress: Egress) -> None:
    """U11: deterministic under load: U1, U3 and U8 again."""
    nat = Nat(egress, max_links=70_000, max_links_per_host=70_000)
    crowd = address_int(C)
    for port in range(1024, 1024 + 61_288):
        assert not isinstance(nat.aliases.outbound(egress, udp(crowd, port, address_int(E), 9), nat.now), Drop)
    for _ in range(2):
        ports = [passed(nat.out(asks(A, 5000, remote)))[UDP].sport for remote in (E, F)]
        assert ports[0] == ports[1]
        other = passed(nat.out(asks(B, 5000)))[UDP].sport
        assert other != ports[0]
        assert passed(nat.back(answers(nat, ports[0], F, 4242)))[IP].dst == A
        assert passed(nat.back(answers(nat, other, F, 4242)))[IP].dst == B
        nat.after(301)


def test_the_host_of_tun0_is_an_inside_host_like_any_other() -> None:
    """Trap 2: the host's and the LAN's traffic share one port space."""
    nat = Nat()
    assert passed(nat.out(asks(HOST, 5000)))[UDP].sport == 5000
    assert passed(nat.out(asks(A, 5000)))[UDP].sport != 5000
    assert passed(nat.back(answers(nat, 5000)))[IP].dst == HOST


def test_payload_that_names_inside_addresses_passes_byte_for_byte() -> None:
    """U10: no application-level gateways."""
    nat = Nat()
    text = b"INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.200.10:5060\r\n"
    seen = passed(nat.out(IP(src=A, dst=E) / UDP(sport=5060, dport=5060) / text))
    assert bytes(seen[UDP].payload) == text


@pytest.mark.parametrize("kind", [(3, 0), (3, 1), (3, 3), (3, 4), (11, 0), (12, 0), (4, 0), (5, 1)])
def test_an_icmp_error_leaves_its_link_as_it_is(kind: tuple[int, int]) -> None:
    """U12, T10, I6: errors are looked up by what they quote, which changes nothing."""
    nat = Nat()
    outside = passed(nat.out(asks(A, 5000)))
    nat.at(250)
    error = IP(src="198.51.100.1", dst=nat.x) / ICMP(type=kind[0], code=kind[1]) / bytes(outside)
    assert nat.back(error) is Drop.ICMP_TYPE
    found = nat.aliases.peek_inbound(nat.egress, UDP_PROTOCOL, 5000, address_int(E))
    assert found is nat.link()
    nat.at(299)
    passed(nat.back(answers(nat, 5000)))
    nat.at(301)
    assert nat.back(answers(nat, 5000)) is Drop.ALIAS_NO_LINK


def test_a_udp_link_is_no_tcp_link() -> None:
    """R4."""
    nat = Nat()
    nat.out(asks(A, 5000))
    assert nat.back(IP(src=E, dst=nat.x) / TCP(sport=80, dport=5000, flags="S")) is Drop.ALIAS_NO_LINK


def test_counters_and_idle_time_follow_both_directions() -> None:
    nat = Nat()
    nat.out(asks(A, 5000))
    nat.at(7)
    nat.back(answers(nat, 5000))
    link = nat.link()
    assert (link.packets, link.bytes, link.last_ns) == (2, 36 + 34, nat.now)


def test_what_a_fast_path_forwarded_counts_and_refreshes() -> None:
    nat = Nat()
    nat.out(asks(A, 5000))
    link = nat.link()
    nat.at(200)
    nat.aliases.confirm(link, nat.now, outbound=True, packets=10, size_bytes=1000)
    nat.at(400)
    nat.aliases.confirm(link, nat.now, outbound=False, packets=1, size_bytes=50)
    assert (link.packets, link.bytes, link.last_ns) == (12, 1086, nat.now)
    nat.at(499)
    passed(nat.back(answers(nat, 5000)))
    nat.at(501)
    assert nat.back(answers(nat, 5000)) is Drop.ALIAS_NO_LINK
    nat.aliases.confirm(link, nat.now, outbound=True, packets=1, size_bytes=50)
    assert nat.links() == []


def test_news_from_a_fast_path_may_be_late_and_never_shortens_a_life() -> None:
    nat = Nat()
    nat.out(asks(A, 5000))
    nat.at(100)
    nat.out(asks(A, 5000))
    nat.aliases.confirm(nat.link(), nat.now - seconds_ns(50), outbound=True, packets=1, size_bytes=50)
    assert nat.link().expires_ns == nat.now + seconds_ns(300)


def test_link_events_are_told_once() -> None:
    nat = Nat()
    nat.out(asks(A, 5000))
    nat.out(asks(B, 5000))
    assert [type(event).__name__ for event in nat.aliases.take_events()] == ["Linked", "Linked"]
    assert nat.aliases.take_events() == []
    nat.at(400)
    assert len(nat.ended) == 2
    assert nat.aliases.take_events() == [], "tick has told them"


def test_flush_ends_links_of_one_host_or_of_all() -> None:
    nat = Nat()
    for port in range(5000, 5010):
        nat.out(asks(A, port))
        nat.out(asks(B, port + 100))
    assert nat.aliases.flush({address_int(A)}, nat.now) == 10
    assert {link.inside for link in nat.links()} == {address_int(B)}
    assert nat.aliases.flush() == 10
    assert nat.links() == []
    assert nat.aliases.next_deadline() is None
    assert nat.back(answers(nat, 5100)) is Drop.ALIAS_NO_LINK
    assert passed(nat.out(asks(A, 5000)))[UDP].sport == 5000, "the same endpoint has its own port back"


def test_an_inside_host_is_named_once_however_many_links_it_has_and_until_the_last_ends() -> None:
    nat = Nat()
    for port in range(5000, 5010):
        nat.out(asks(A, port))
    nat.at(200)
    nat.out(asks(B, 5000))
    assert nat.aliases.insides == [address_int(A), address_int(B)]
    nat.at(301)
    assert nat.aliases.insides == [address_int(B)]
    nat.aliases.flush()
    assert nat.aliases.insides == []
