"""RFC 5382 and RFC 7857 2: the effects of TCP segments on a link, second by second."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP

from alias import sessions
from alias.types import Egress, Unanswered
from tests.alias.nat import A, B, E, F, Nat, passed
from tests.alias.tcp_call import INSIDE_START, OUTSIDE_START, Call, both_egresses
from wire.drop import Drop
from wire.units import seconds_ns


@both_egresses
def test_a_tcp_endpoint_has_one_outside_port_for_every_remote(egress: Egress) -> None:
    """T1."""
    nat = Nat(egress)
    ports = {
        passed(Call(nat, remote=remote, remote_port=port).out("S"))[TCP].sport for remote in (E, F) for port in (80, 81)
    }
    assert ports == {5000}
    assert len(nat.links()) == 1


def test_two_tcp_endpoints_never_share_a_port() -> None:
    """T7."""
    nat = Nat()
    one, other = Call(nat), Call(nat, inside=B, remote=F)
    one.out("S")
    other.out("S")
    assert one.outside_port != other.outside_port


@both_egresses
def test_the_state_is_that_of_rfc_6146_after_each_segment(egress: Egress) -> None:
    """R1, T2."""
    nat = Nat(egress)
    call = Call(nat)
    for side, flags, payload, state in [
        ("out", "S", b"", "INIT"),
        ("back", "SA", b"", "EST"),
        ("out", "A", b"", "EST"),
        ("out", "PA", b"request", "EST"),
        ("back", "A", b"", "EST"),
        ("back", "PA", b"answer", "EST"),
        ("out", "FA", b"", "out-FIN"),
        ("back", "A", b"", "out-FIN"),
        ("back", "PA", b"more", "out-FIN"),
        ("out", "A", b"", "out-FIN"),
        ("back", "FA", b"", "both-FIN"),
        ("out", "A", b"", "both-FIN"),
        ("back", "FA", b"", "both-FIN"),
        ("out", "S", b"", "INIT"),
    ]:
        passed(call.out(flags, payload) if side == "out" else call.back(flags, payload))
        assert call.state == state, f"{side} {flags}"


def test_the_remote_may_close_first() -> None:
    """T2, R1."""
    call = Call(Nat()).opened()
    passed(call.back("FA"))
    assert call.state == "in-FIN"
    passed(call.out("PA", b"still talking"))
    assert call.state == "in-FIN"
    passed(call.out("FA"))
    assert call.state == "both-FIN"


def test_half_closed_connections_carry_data_for_hours() -> None:
    """T2: A has closed, E sends for an hour, and once more after two hours of silence."""
    nat = Nat()
    call = Call(nat).opened()
    passed(call.out("FA"))
    for _ in range(12):
        nat.after(300)
        passed(call.back("PA", b"data"))
    nat.after(7439)
    passed(call.back("PA", b"the last"))


def test_odd_but_valid_segments_pass() -> None:
    """T2: a repeated SYN, a SYN with data, a keepalive one below the window, a late FIN, a reset."""
    nat = Nat()
    call = Call(nat)
    passed(call.out("S", b"early data"))
    passed(call.out("S", b"early data", seq=INSIDE_START))
    passed(call.back("SA"))
    passed(call.out("A"))
    passed(call.out("A", seq=call.sent - 1))
    passed(call.back("A", b"\0", seq=call.received - 1))
    passed(call.out("FA"))
    passed(call.back("FA"))
    passed(call.back("FA", seq=call.received - 1))
    passed(call.back("R"))
    assert call.state == "both-FIN"


@both_egresses
@pytest.mark.parametrize("filtering", ["endpoint-independent", "address-dependent"])
def test_simultaneous_open(egress: Egress, filtering: str) -> None:
    """T2a: out SYN, in SYN, SYN-ACK both ways."""
    call = Call(Nat(egress, filtering=filtering))
    for side, flags, state in [("out", "S", "INIT"), ("back", "S", "EST"), ("out", "SA", "EST"), ("back", "SA", "EST")]:
        passed(call.out(flags) if side == "out" else call.back(flags))
        assert call.state == state
    call.nat.after(7439)
    passed(call.back("A"))


def test_simultaneous_open_where_the_outside_was_first() -> None:
    """T2a: the stranger's SYN passes the endpoint-independent filter before the inside has sent its own."""
    nat = Nat()
    Call(nat, remote=F).opened()  # the endpoint has a link
    call = Call(nat)
    call.outside_port = 5000
    passed(call.back("S"))
    passed(call.out("S", seq=INSIDE_START))
    passed(call.out("SA", seq=INSIDE_START))
    passed(call.back("SA", seq=OUTSIDE_START))
    passed(call.out("A"))
    nat.after(7439)
    passed(call.back("A"))


def test_filtering_may_be_address_dependent() -> None:
    """T3."""
    nat = Nat(filtering="address-dependent")
    Call(nat).opened()
    stranger = Call(nat, remote=F)
    assert stranger.back("S") is Drop.ALIAS_FILTERED
    passed(Call(nat, remote_port=8080).back("S"))
    passed(stranger.out("S"))
    passed(stranger.back("SA"))


# T4: unsolicited SYNs


def test_an_unsolicited_syn_meets_silence_by_default() -> None:
    """T4."""
    nat = Nat()
    assert Call(nat).back("S") is Drop.ALIAS_NO_LINK
    assert nat.aliases.next_deadline() is None


@both_egresses
def test_an_unsolicited_syn_is_answered_after_six_seconds_where_configured(egress: Egress) -> None:
    """T4."""
    nat = Nat(egress, unsolicited_syn="unreachable")
    syn = IP(src=E, dst=nat.x, id=77) / TCP(sport=80, dport=5000, flags="S", seq=3)
    assert nat.back(syn) is Drop.ALIAS_NO_LINK
    nat.at(5.999)
    assert nat.unanswered == []
    nat.at(3600)
    assert nat.unanswered == [(6, Unanswered(egress, bytes(syn)))]


def test_a_syn_from_inside_for_the_same_pair_cancels_the_error() -> None:
    """T4: at +3 s, then never an error."""
    nat = Nat(unsolicited_syn="unreachable")
    call = Call(nat)
    assert call.back("S") is Drop.ALIAS_NO_LINK
    nat.at(3)
    passed(call.out("S"))
    nat.at(60)
    assert nat.unanswered == []


def test_a_syn_for_another_pair_cancels_nothing() -> None:
    """T4."""
    nat = Nat(unsolicited_syn="unreachable")
    assert Call(nat).back("S") is Drop.ALIAS_NO_LINK
    passed(Call(nat, remote_port=81).out("S"))
    passed(Call(nat, port=5001).out("S"))
    nat.at(6)
    assert len(nat.unanswered) == 1


def test_a_filtered_syn_is_an_unsolicited_one() -> None:
    """T4."""
    nat = Nat(unsolicited_syn="unreachable", filtering="address-dependent")
    passed(Call(nat).out("S"))
    assert Call(nat, remote=F).back("S") is Drop.ALIAS_FILTERED
    nat.at(6)
    assert len(nat.unanswered) == 1


def test_only_pure_syns_are_remembered_once_and_bounded() -> None:
    """T4."""
    nat = Nat(unsolicited_syn="unreachable")
    call = Call(nat)
    for flags in ("SA", "A", "R", "FA", "SR", ""):
        assert call.back(flags) is Drop.ALIAS_NO_LINK
    assert nat.aliases.next_deadline() is None
    for _ in range(3):
        call.back("S", seq=OUTSIDE_START)
        nat.after(1)
    nat.at(6)
    assert len(nat.unanswered) == 1
    for port in range(1, 3000):
        Call(nat, remote_port=port).back("S")
    nat.at(12)
    assert len(nat.unanswered) == 1 + 1024


# T5: timers


@both_egresses
def test_an_established_connection_may_be_idle_for_7440_seconds(egress: Egress) -> None:
    """T5."""
    nat = Nat(egress)
    call = Call(nat).opened()
    nat.after(7439)
    passed(call.back("A"))
    nat.after(7439)
    passed(call.out("A"))
    nat.after(7439)
    passed(call.back("A"))
    nat.after(7441)
    assert call.back("A") is Drop.ALIAS_NO_LINK
    assert [t for t, _ in nat.ended] == [3 * 7439 + 7440]


@both_egresses
def test_a_connection_that_is_only_asked_for_lives_for_240_seconds(egress: Egress) -> None:
    """T5, R2."""
    nat = Nat(egress)
    call = Call(nat)
    passed(call.out("S"))
    nat.after(239)
    passed(call.back("SA"))
    nat.after(7439)
    passed(call.out("A"))
    other = Call(nat, port=6000)
    passed(other.out("S"))
    nat.after(200)
    passed(other.out("S", seq=INSIDE_START))
    nat.after(239)
    assert not isinstance(other.back("A"), Drop), "a stray ACK passes and makes nothing of it"
    nat.after(2)
    assert other.back("SA") is Drop.ALIAS_NO_LINK


@both_egresses
def test_a_closed_connection_lives_for_240_seconds_after_each_packet(egress: Egress) -> None:
    """T5, R2."""
    nat = Nat(egress)
    call = Call(nat).opened()
    passed(call.out("FA"))
    passed(call.back("FA"))
    for answer in (call.out, call.back, call.back, call.out):
        nat.after(239)
        passed(answer("A"))
    nat.after(241)
    assert call.back("A") is Drop.ALIAS_NO_LINK
    assert [t for t, _ in nat.ended] == [4 * 239 + 240]


def test_tcp_timers_are_configurable() -> None:
    """T5a, R2."""
    nat = Nat(tcp_established_ns=seconds_ns(8000), tcp_transitory_ns=seconds_ns(300))
    call = Call(nat)
    passed(call.out("S"))
    nat.after(299)
    passed(call.back("SA"))
    nat.after(7999)
    passed(call.back("A"))
    nat.after(8001)
    assert call.back("A") is Drop.ALIAS_NO_LINK


def test_a_new_syn_reopens_a_closed_link_on_the_same_port() -> None:
    """T2."""
    nat = Nat()
    call = Call(nat).opened()
    call.out("FA")
    call.back("FA")
    nat.after(100)
    call.sent, call.received = 90_000, 80_000
    call.opened()
    assert call.outside_port == 5000
    nat.after(7439)
    passed(call.back("A"))


def test_a_handshake_through_hairpin() -> None:
    """T8: a full handshake of A and B through X."""
    nat = Nat()
    Call(nat).opened()
    to_b = {"sport": 5000, "window": 1024}
    syn = IP(src=B, dst=nat.x) / TCP(sport=7000, dport=5000, flags="S", seq=1)
    seen = passed(nat.turn(syn))
    assert (seen.src, seen.dst, seen[TCP].dport) == (nat.x, A, 5000)
    m = seen[TCP].sport
    seen = passed(nat.turn(IP(src=A, dst=nat.x) / TCP(dport=m, flags="SA", seq=9, ack=2, **to_b)))
    assert (seen.src, seen[TCP].sport, seen.dst, seen[TCP].dport) == (nat.x, 5000, B, 7000)
    passed(nat.turn(IP(src=B, dst=nat.x) / TCP(sport=7000, dport=5000, flags="A", seq=2, ack=10)))
    assert {link.state for link in nat.links()} == {"EST"}
    nat.after(7439)
    passed(nat.turn(IP(src=A, dst=nat.x) / TCP(dport=m, flags="A", seq=10, ack=2, **to_b)))


# Several remotes in one link


def test_the_link_has_the_state_and_the_life_of_its_longest_living_session() -> None:
    """R1, T5."""
    nat = Nat()
    one, other = Call(nat).opened(), Call(nat, remote=F)
    passed(other.out("S"))
    assert (one.state, nat.link().expires_ns) == ("EST", nat.now + seconds_ns(7440))
    passed(one.back("R"))
    assert nat.link().state in ("TRANS", "INIT")
    assert nat.link().expires_ns == nat.now + seconds_ns(240)
    passed(other.back("SA"))
    assert nat.link().state == "EST"
    nat.after(241)
    passed(one.back("A"))
    assert nat.link().expires_ns == nat.now + seconds_ns(7440 - 241), "that session has expired: a stranger's packet"
    nat.after(7198)
    assert nat.link().state == "EST"
    nat.after(1)
    assert nat.links() == []


def test_sessions_are_bounded_and_what_exceeds_the_bound_keeps_its_link_alive() -> None:
    """T5."""
    nat = Nat()
    calls = [Call(nat, remote_port=port) for port in range(1, sessions.PER_LINK + 50)]
    for call in calls:
        passed(call.out("S"))
        passed(call.back("SA"))
        passed(call.out("A"))
    link = nat.link()
    assert isinstance(link.sessions, dict)
    assert len(link.sessions) == sessions.PER_LINK + 1
    for call in calls:
        passed(call.out("R"))
    assert (link.state, link.expires_ns) == ("EST", nat.now + seconds_ns(7440)), "those that are not followed"
    nat.after(7439)
    passed(calls[-1].out("A"))
    assert len(link.sessions) < sessions.PER_LINK, "the expired ones have given way"
    nat.after(7441)
    assert nat.links() == []


def test_sessions_are_bounded_in_all_links_together() -> None:
    nat = Nat(max_links=8)
    for port in range(5000, 5008):
        for remote_port in range(1, 12):
            passed(Call(nat, port=port, remote_port=remote_port).out("S"))
    kept = [len(link.sessions) if isinstance(link.sessions, dict) else 1 for link in nat.links()]
    assert sum(kept) <= 8 + 8 + 8, "the first of each link, the bound, and one for those that are not followed"
    nat.at(7441)
    assert nat.links() == []
    passed(Call(nat).opened().out("FA"))
    assert nat.link().state == "out-FIN", "the room is free again"


def test_a_fin_of_one_remote_leaves_the_others_alone() -> None:
    """R1."""
    nat = Nat()
    one, other = Call(nat).opened(), Call(nat, remote=F).opened()
    passed(one.out("FA"))
    passed(one.back("FA"))
    assert nat.link().state == "EST"
    nat.after(7439)
    passed(other.back("A"))
