"""Two MAC addresses for one neighbour, and neighbours that say nothing new: rows A16, A26, A30-A33."""

from __future__ import annotations

import pytest
from arp_bench import (
    A_MAC,
    LOCKED,
    OTHER_MAC,
    OWN,
    OWN_MAC,
    REPLY,
    REQUEST,
    THIRD_MAC,
    A,
    Bench,
    C,
    announces,
    answers,
    arp_frame,
    asks,
)

from arp.effects import EntryChanged
from wire.units import mac_bytes, seconds_ns

BOTH = ["ask 02:aa:00:00:00:0a for 192.168.200.10", "ask all for 192.168.200.10"]
VIRTUAL = mac_bytes("00:00:5e:00:01:07")


# A neighbour that says what we know already


@pytest.mark.parametrize(
    "frame", [asks(A, A_MAC), asks(A, A_MAC, C), announces(A, A_MAC), arp_frame(REPLY, A, A_MAC, A), answers(A, A_MAC)]
)
def test_a16_any_arp_packet_of_a_known_neighbour_restarts_its_time_out(frame: bytes) -> None:
    bench = Bench()
    bench.hears(asks(A, A_MAC), 0)
    bench.hears(frame, 55)
    bench.runs_until(100)
    assert (bench.state(A, 100), bench.mac(A, 100)) == ("stale", A_MAC)
    bench.runs_until(115)
    assert bench.state(A, 115) is None


def test_a16_a_host_that_announces_itself_every_half_minute_stays_reachable_for_an_hour() -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    for announced in range(30, 3600, 30):
        bench.runs_until(announced)
        bench.hears(announces(A, A_MAC), announced)
        assert bench.finds(A, announced + 29) == A_MAC
        assert bench.state(A, announced + 29) == "reachable"
    assert not any(change.change == "failed" for change in bench.changes)


def test_a16_a_neighbour_that_speaks_while_it_is_polled_is_there() -> None:
    bench = Bench()
    bench.hears(asks(A, A_MAC), 0)
    bench.finds(A, 1)
    assert bench.runs_until(7) == [(6.0, BOTH[0]), (7.0, BOTH[0])]
    bench.hears(announces(A, A_MAC), 7.5)
    bench.runs_until(12)
    assert (bench.state(A, 12), bench.finds(A, 12)) == ("delay", A_MAC)


def test_a16_traffic_that_proves_both_ways_restarts_the_time_out_where_it_comes_from_the_neighbours_station() -> None:
    bench = Bench()
    bench.hears(asks(A, A_MAC), 0)
    bench.finds(A, 1)
    bench.port.confirm(A, OTHER_MAC, seconds_ns(2))
    assert bench.state(A, 2) == "delay"
    for second in range(2, 600, 10):
        bench.port.confirm(A, A_MAC, seconds_ns(second))
        assert bench.runs_until(second + 9) == []
        assert bench.state(A, second + 9) == "reachable"


# Claims


@pytest.mark.parametrize("opcode", [REQUEST, REPLY])
def test_a30_a31_a_router_that_moved_is_followed_within_a_tenth_of_a_second(opcode: int) -> None:
    """VRRP takeover: the former station is gone, the new one answers."""
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    assert bench.hears(arp_frame(opcode, A, OTHER_MAC, A), 29) == [*LOCKED, *BOTH]
    assert bench.finds(A, 29.01) == A_MAC
    assert bench.hears(answers(A, OTHER_MAC), 29.02) == []
    assert bench.runs_until(29.1) == []
    assert (bench.state(A, 29.1), bench.finds(A, 29.1)) == ("reachable", OTHER_MAC)
    assert bench.changes[-1] == EntryChanged(A, OTHER_MAC, "reachable", "changed")


@pytest.mark.parametrize("later", [0.5, 30])
def test_a30_the_time_since_it_was_learned_makes_no_difference(later: float) -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    bench.port.confirm(A, A_MAC, seconds_ns(later - 0.1))
    assert bench.hears(announces(A, OTHER_MAC), later) == [*LOCKED, *BOTH]
    bench.hears(answers(A, OTHER_MAC), later + 0.001)
    bench.runs_until(later + 0.1)
    assert bench.finds(A, later + 0.1) == OTHER_MAC


@pytest.mark.parametrize("forger_first", [True, False])
def test_a31_a_forger_that_answers_moves_nothing_while_the_router_lives(forger_first: bool) -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    assert bench.hears(announces(A, OTHER_MAC), 5) == [*LOCKED, *BOTH]
    for at, mac in ((5.001, OTHER_MAC), (5.01, A_MAC)) if forger_first else ((5.001, A_MAC), (5.01, OTHER_MAC)):
        bench.hears(answers(A, mac), at)
        assert bench.finds(A, at) == A_MAC
    assert bench.runs_until(6) == [] if forger_first else True
    assert (bench.state(A, 5.9), bench.finds(A, 5.9)) == ("reachable", A_MAC)
    assert bench.changes[-1] == EntryChanged(A, A_MAC, "reachable", "conflict", OTHER_MAC)


def test_a31_there_is_one_question_a_second_whatever_is_forged() -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    told: list[str] = []
    for millisecond in range(2000, 5000, 10):
        told += [words for _, words in bench.runs_until(millisecond / 1000)]
        told += bench.hears(announces(A, OTHER_MAC), millisecond / 1000)
        told += bench.hears(answers(A, A_MAC), millisecond / 1000)
        assert bench.finds(A, millisecond / 1000) == A_MAC
    assert told.count(BOTH[1]) == 3
    assert [change.change for change in bench.changes].count("conflict") == 1, "told once in ten seconds"


def test_a31_where_nobody_answers_the_known_station_keeps_the_address_and_is_polled_on() -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    assert bench.hears(announces(A, OTHER_MAC), 5) == [*LOCKED, *BOTH]
    assert bench.runs_until(5.9) == []
    assert (bench.state(A, 5.9), bench.finds(A, 5.9)) == ("probe", A_MAC)
    assert bench.runs_until(8) == [(6.0, BOTH[0]), (7.0, BOTH[0])]
    assert bench.state(A, 8) == "failed"


def test_a31_an_idle_entry_takes_the_claim_and_gives_it_back_when_its_former_station_speaks() -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    assert bench.hears(announces(A, OTHER_MAC), 40) == BOTH
    assert bench.mac(A, 40) == OTHER_MAC
    assert bench.hears(answers(A, A_MAC), 40.02) == []
    assert (bench.state(A, 40.02), bench.mac(A, 40.02)) == ("reachable", A_MAC)
    assert [change.change for change in bench.changes[-2:]] == ["changed", "conflict"]


def test_a31_the_one_who_claims_an_idle_entry_confirms_it_by_an_answer() -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    bench.hears(announces(A, OTHER_MAC), 40)
    bench.hears(answers(A, OTHER_MAC), 40.02)
    bench.runs_until(40.1)
    assert (bench.state(A, 40.1), bench.mac(A, 40.1)) == ("reachable", OTHER_MAC)


def test_a31_of_two_claimants_the_first_that_answers_has_the_address() -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    bench.hears(announces(A, OTHER_MAC), 5)
    bench.hears(answers(A, THIRD_MAC), 5.01)
    bench.hears(answers(A, OTHER_MAC), 5.02)
    bench.runs_until(5.1)
    assert bench.finds(A, 5.1) == THIRD_MAC


def test_a31_the_answer_to_an_open_question_needs_no_token_of_strangers() -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    bench.hears(announces(A, OTHER_MAC), 5)
    for stranger in range(1100):
        bench.hears(asks(0, mac_bytes(f"02:cc:00:00:{stranger >> 8:02x}:{stranger & 255:02x}")), 5.01)
    assert bench.hears(asks(0, THIRD_MAC), 5.01) == ["dropped: arp.rate_limited"]
    assert bench.hears(answers(A, OTHER_MAC), 5.02) == []
    bench.runs_until(5.1)
    assert bench.finds(A, 5.1) == OTHER_MAC


def test_a26_a_claim_within_a_second_of_the_last_change_is_not_believed_but_asked_about_at_once() -> None:
    bench = Bench()
    bench.hears(asks(A, A_MAC), 0)
    assert bench.hears(announces(A, OTHER_MAC), 0.5) == [*LOCKED, *BOTH]
    assert bench.finds(A, 0.5) == A_MAC
    assert bench.changes[1:] == [EntryChanged(A, A_MAC, "stale", "refused", OTHER_MAC)]
    bench.hears(answers(A, OTHER_MAC), 0.51)
    bench.runs_until(0.6)
    assert bench.finds(A, 0.6) == OTHER_MAC


def test_a26_an_address_that_goes_back_within_the_second_is_asked_about_when_the_second_is_over() -> None:
    """Report 18: keepalived with one announcement each; the backup is silent after it gave the address back."""
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    bench.hears(announces(A, OTHER_MAC), 5)
    bench.hears(answers(A, OTHER_MAC), 5.01)
    bench.runs_until(5.1)
    assert bench.hears(announces(A, A_MAC), 5.3)[0] in LOCKED
    assert bench.runs_until(6) == [(6.0, "ask 02:bb:00:00:00:01 for 192.168.200.10"), (6.0, BOTH[1])]
    bench.hears(answers(A, A_MAC), 6.001)
    bench.runs_until(6.1)
    assert bench.finds(A, 6.1) == A_MAC


def test_a26_report_18_an_announcement_of_the_known_station_ends_the_question() -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 1.1)
    bench.hears(announces(A, OTHER_MAC), 5)
    bench.runs_until(5.3)
    bench.hears(announces(A, A_MAC), 5.3)
    assert (bench.state(A, 5.3), bench.finds(A, 5.3)) == ("reachable", A_MAC)


def test_a32_a_router_may_ask_under_its_own_mac_address_while_its_virtual_one_holds_the_address() -> None:
    bench = Bench()
    bench.knows(A, VIRTUAL, 0)
    told = bench.hears(asks(A, OTHER_MAC), 5)
    assert told[-1] == "reply to 02:bb:00:00:00:01: 192.168.200.2 is ours, 192.168.200.10 at 02:bb:00:00:00:01"
    bench.hears(arp_frame(REPLY, A, VIRTUAL, OWN, to=OWN_MAC, link_source=OTHER_MAC), 5.01)
    bench.runs_until(6)
    assert (bench.state(A, 6), bench.finds(A, 6)) == ("reachable", VIRTUAL)
    assert [change.change for change in bench.changes] == ["learned"], "no conflict is told"


def test_a25_a_static_entry_is_in_no_dispute() -> None:
    bench = Bench(static={A: A_MAC})
    assert bench.hears(announces(A, OTHER_MAC), 5) == LOCKED
    assert bench.words(bench.port.suspect(A, seconds_ns(5))) == []


def test_a_question_ends_with_the_entry() -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    bench.hears(announces(A, OTHER_MAC), 5)
    assert bench.port.delete(A)
    assert bench.hears(answers(A, OTHER_MAC), 5.01) == []
    assert (bench.runs_until(5.2), bench.mac(A, 5.2)) == ([], OTHER_MAC)


# Silence


def test_a33_a_silent_next_hop_is_asked_by_unicast_and_after_300_ms_by_broadcast() -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    assert bench.words(bench.port.suspect(A, seconds_ns(5))) == BOTH[:1]
    assert bench.words(bench.port.suspect(A, seconds_ns(5.2))) == []
    assert bench.runs_until(5.3) == [(5.3, BOTH[1])]
    bench.hears(answers(A, OTHER_MAC), 5.31)
    bench.runs_until(5.4)
    assert bench.finds(A, 5.4) == OTHER_MAC


def test_a33_a_next_hop_that_answers_is_left_alone() -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    bench.words(bench.port.suspect(A, seconds_ns(5)))
    bench.hears(answers(A, A_MAC), 5.01)
    assert bench.runs_until(6) == []
    assert (bench.state(A, 6), len(bench.changes)) == ("reachable", 1)
