"""The judge of `trials.faults` sees what it is there to see."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.flows import LAN_TO_VPN
from trials.faults.account import MILLISECOND_NS, FlowLosses, Window, account
from trials.faults.case import MOST_GROWTH_KB, Case, CaseReport, judge
from trials.traffic.lasting import StreamArrival, TalkerEvent, TalkerEventKind

SECOND_NS = 1000 * MILLISECOND_NS
WINDOW = Window(since_ns=0, began_ns=2 * SECOND_NS, over_ns=4 * SECOND_NS)
MARGIN_NS = 100 * MILLISECOND_NS
FLOW = LAN_TO_VPN.name
WHOLE = {"ok": True}


def seen(sent: dict[int, float], there: list[int], back: list[tuple[int, float]]) -> FlowLosses:
    """Times in seconds; the server hears everything in the order given."""
    happened = [TalkerEvent(TalkerEventKind.SENT, number, round(at * SECOND_NS)) for number, at in sent.items()]
    happened += [TalkerEvent(TalkerEventKind.ANSWERED, number, round(at * SECOND_NS)) for number, at in back]
    return account(FLOW, happened, [StreamArrival(1, number, 0) for number in there], WINDOW, MARGIN_NS)


def test_losses_are_told_by_the_way_that_they_were_lost_on() -> None:
    found = seen({0: 1, 1: 2.5, 2: 3, 3: 4.5}, [0, 2, 3], [(0, 1.1), (3, 4.6)])
    assert (found.lost_there, found.lost_back, found.lost) == (1, 1, 2)
    assert found.strays == 0
    assert found.after_ms == pytest.approx(600)
    assert found.gap_ms == pytest.approx(3500)


def test_what_came_twice_or_late_is_told_once_each() -> None:
    found = seen(dict.fromkeys(range(4), 1), [0, 2, 1, 1, 3], [(0, 1), (1, 1), (2, 1), (3, 1), (3, 1)])
    assert (found.duplicated, found.late, found.lost) == (2, 1, 0)


def test_a_loss_before_the_cause_or_after_the_recovery_is_a_stray() -> None:
    assert seen({0: 1, 1: 3, 2: 4.5}, [1, 2], [(1, 3.1), (2, 4.6)]).strays == 1
    assert seen({0: 1, 1: 4.5, 2: 5.5}, [0, 1], [(0, 1.1), (1, 4.6)]).strays == 1
    assert seen({0: 1, 1: 1.95, 2: 4.5}, [0, 2], [(0, 1.1), (2, 4.6)]).strays == 0, "it was on its way"


CASE = Case("case", "a fault", lambda stage, seconds: None, drops=frozenset({"port.down"}))
GOOD = CaseReport(
    case="case",
    what="a fault",
    lasted_s=2.0,
    accounts=[seen({0: 1, 1: 3, 2: 4.5}, [0, 2], [(0, 1.1), (2, 4.6)])],
    connections={FLOW: WHOLE},
    drops={"port.down": 1},
    drops_beyond={},
    memory_kb=(50_000, 50_100),
    descriptors=(18, 18),
)


def test_a_good_report_has_no_fault() -> None:
    assert judge(CASE, GOOD) == []


@pytest.mark.parametrize(
    ("case", "report", "told"),
    [
        (CASE, replace(GOOD, accounts=[seen({0: 1, 1: 5}, [0], [(0, 1.1)])]), "nothing passes any more"),
        (replace(CASE, touches=()), GOOD, "does not concern it"),
        (CASE, replace(GOOD, accounts=[seen({0: 1, 1: 4.5}, [1], [(1, 4.6)])]), "outside the time"),
        (CASE, replace(GOOD, connections={FLOW: {"ok": False, "error": "ECONNRESET"}}), "ECONNRESET"),
        (CASE, replace(GOOD, drops={"port.down": 1, "walk.fault": 2}), "'walk.fault': 2"),
        (CASE, replace(GOOD, memory_kb=(50_000, 50_001 + MOST_GROWTH_KB)), "memory grew"),
        (CASE, replace(GOOD, descriptors=(18, 19)), "18 descriptors and has 19"),
    ],
)
def test_the_judge_finds_what_does_not_hold(case: Case, report: CaseReport, told: str) -> None:
    (fault,) = judge(case, report)
    assert told in fault
