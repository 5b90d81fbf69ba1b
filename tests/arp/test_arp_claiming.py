"""Our own address on the link, RFC 5227: rows A13 and A14."""

from __future__ import annotations

from itertools import pairwise

import pytest
from arp_bench import A_MAC, OTHER_MAC, OWN, OWN_MAC, REPLY, REQUEST, A, Bench, announces, answers, arp_frame, asks

from arp.effects import EntryChanged
from wire.units import seconds_ns

PROBE, ANNOUNCE = "probe 192.168.200.2", "announce 192.168.200.2"
CONFLICT = "dropped: arp.conflict"
IN_CONFLICT = EntryChanged(OWN, OTHER_MAC, "conflict", "conflict", OTHER_MAC)


def started(t: float = 0, seed: int = 0) -> Bench:
    bench = Bench(seed=seed)
    assert bench.port.start(seconds_ns(t)) == []
    return bench


@pytest.mark.parametrize("opcode", [REQUEST, REPLY])
@pytest.mark.parametrize("target", [OWN, A])
def test_a13_conflicts_are_answered_by_one_announcement_in_ten_seconds(opcode: int, target: int) -> None:
    bench = Bench()
    frame = arp_frame(opcode, OWN, OTHER_MAC, target)
    assert bench.hears(frame, 1) == [CONFLICT, ANNOUNCE]
    assert bench.hears(frame, 3) == [CONFLICT]
    assert bench.hears(frame, 6) == [CONFLICT]
    assert bench.hears(frame, 10.999) == [CONFLICT]
    assert bench.hears(frame, 11) == [CONFLICT, ANNOUNCE]
    assert bench.port.conflicts == 5
    assert bench.changes == [IN_CONFLICT] * 2, "told as often as defended"
    assert bench.port.used == 0


def test_a13_our_own_frame_that_comes_back_is_no_conflict() -> None:
    bench = Bench()
    assert bench.hears(announces(OWN, OWN_MAC), 0) == ["dropped: arp.sender"]
    assert bench.port.conflicts == 0


def test_a13_someone_who_probes_for_our_claimed_address_is_answered_and_no_conflict() -> None:
    bench = Bench()
    assert bench.hears(asks(0, OTHER_MAC), 0)[0].startswith("reply to")
    assert (bench.port.conflicts, bench.changes) == (0, [])


@pytest.mark.parametrize("seed", range(20))
def test_a14_three_probes_and_two_announcements_at_the_intervals_of_rfc_5227(seed: int) -> None:
    bench = started(100, seed)
    told = bench.runs_until(1000)
    assert [said for _, said in told] == [PROBE, PROBE, PROBE, ANNOUNCE, ANNOUNCE]
    at = [t for t, _ in told]
    assert 100 <= at[0] <= 101
    assert 1 <= at[1] - at[0] <= 2
    assert 1 <= at[2] - at[1] <= 2
    assert at[3] - at[2] == pytest.approx(2)
    assert at[4] - at[3] == pytest.approx(2)
    assert bench.port.next_deadline() is None


def test_a14_the_same_seed_gives_the_same_times() -> None:
    assert started(seed=7).runs_until(100) == started(seed=7).runs_until(100) != started(seed=8).runs_until(100)


def test_a14_traffic_does_not_wait_for_the_probes() -> None:
    bench = started()
    assert bench.hears(asks(A, A_MAC), 0)[0].startswith("reply to")
    assert bench.finds(A, 0) == A_MAC
    assert bench.holds(A + 1, "frame", 0) == ["ask all for 192.168.200.11"]


def test_a14_without_a_start_nothing_is_announced() -> None:
    assert Bench().port.next_deadline() is None


@pytest.mark.parametrize("frame", [answers(OWN, OTHER_MAC), announces(OWN, OTHER_MAC), asks(0, OTHER_MAC)])
@pytest.mark.parametrize("probes", [0, 1, 2, 3])
def test_a14_a_conflict_before_the_first_announcement_is_told_and_probing_begins_again(
    frame: bytes, probes: int
) -> None:
    bench = started()
    t = 0.0
    for _ in range(probes):
        t = (bench.port.next_deadline() or 0) / 1e9
        assert bench.runs_until(t) == [(t, PROBE)]
    told = bench.hears(frame, t)
    assert ANNOUNCE not in told, "an address that is not announced yet is not defended"
    assert bench.changes == [IN_CONFLICT]
    bench.hears(frame, t)  # this attempt has ended already
    assert bench.changes == [IN_CONFLICT]
    again = bench.runs_until(100)
    assert [said for _, said in again] == [PROBE, PROBE, PROBE, ANNOUNCE, ANNOUNCE]
    assert t <= again[0][0] <= t + 1


def test_a14_after_ten_conflicts_probing_is_tried_once_a_minute() -> None:
    bench = started()
    tries: list[float] = []
    for _ in range(14):
        due = bench.port.next_deadline()
        assert due is not None
        tries.append(due / 1e9)
        assert bench.words(bench.port.tick(due)) == [PROBE]
        bench.hears(answers(OWN, OTHER_MAC), due / 1e9)
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    assert all(gap <= 1 for gap in gaps[:9])
    assert all(60 <= gap <= 61 for gap in gaps[9:])


def test_a14_a_conflict_after_the_first_announcement_is_defended_and_the_second_still_leaves() -> None:
    bench = started()
    while bench.runs_until((bench.port.next_deadline() or 0) / 1e9)[-1][1] != ANNOUNCE:
        pass
    second = bench.port.next_deadline()
    assert second is not None
    assert bench.hears(answers(OWN, OTHER_MAC), second / 1e9 - 1) == [CONFLICT, ANNOUNCE]
    assert [said for _, said in bench.runs_until(1000)] == [ANNOUNCE]
