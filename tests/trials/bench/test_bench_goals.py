"""Goals: ratios within a round, marks reached or not, and why something was not measured."""

from __future__ import annotations

import pytest

from tests.trials.bench.benchmark_run import results, turn
from trials.bench.contestants import KERNEL, OFFLOAD, OURS
from trials.bench.figure import summary
from trials.bench.goals import State, bounds, compared, judged, reasons, state, summed_up
from trials.bench.results import figures_of


def test_every_goal_has_a_line() -> None:
    named = [bound.goal for bound in bounds({})]
    assert list(dict.fromkeys(named)) == [f"P{number}" for number in range(1, 18)]


def test_a_ratio_is_formed_within_each_round_so_a_slow_round_does_not_spread_it() -> None:
    p1 = judged(results())[0]
    assert (p1.goal, p1.against) == ("P1", KERNEL)
    assert (p1.median, p1.low, p1.high) == (0.5, 0.5, 0.5)
    assert p1.state == "missed"


def test_only_rounds_that_both_sides_have_are_compared() -> None:
    figures = figures_of([turn(OURS, OFFLOAD, 1), turn(OURS, OFFLOAD, 2), turn(KERNEL, OFFLOAD, 2)])
    ours, kernel = (next(f for f in figures if (f.contestant, f.key) == (name, "calls")) for name in (OURS, KERNEL))
    assert compared("ratio", ours, kernel) == [0.5]
    assert compared("difference", ours, kernel) == [-500.0]
    assert compared("value", ours, None) == [1000.0, 500.0]


def test_nothing_is_divided_by_zero() -> None:
    none, some = summary("a", "x", [0.0]), summary("b", "x", [1.0])
    assert compared("ratio", some, none) == []


@pytest.mark.parametrize(
    ("median", "least", "stretch", "wants_more", "wanted"),
    [
        (0.84, 0.85, 1.0, True, "missed"),
        (0.85, 0.85, 1.0, True, "reached"),
        (1.0, 0.85, 1.0, True, "stretch"),
        (0.41, 0.40, 0.28, False, "missed"),
        (0.40, 0.40, 0.28, False, "reached"),
        (0.28, 0.40, 0.28, False, "stretch"),
        (0.9, None, 1.0, True, "no stretch"),
        (1.1, None, 1.0, True, "stretch"),
        (19.0, 20.0, None, True, "missed"),
        (20.0, 20.0, None, True, "reached"),
        (0.0, 0.0, 0.0, False, "stretch"),
    ],
)
def test_marks(median: float, least: float | None, stretch: float | None, wants_more: bool, wanted: State) -> None:
    assert state(median, least, stretch, wants_more) == wanted


def test_what_was_not_measured_says_why() -> None:
    reasons = {(goal.goal, goal.against): goal.why for goal in judged(results()) if goal.state == "not measured"}
    assert reasons["P5", "pasta"] == "pasta is absent: pasta not installed <yet>"
    assert reasons["P7", "wireguard-go"] == "wireguard-go on the tunnel path did not take part"
    assert reasons["P12", "tinc"] == "ours-plain on the tunnel path did not take part"
    assert "no value" in reasons["P14", "absolute"]


def test_every_line_that_was_not_measured_has_a_reason_and_no_other_one() -> None:
    for goal in judged(results()):
        assert bool(goal.why) == (goal.state == "not measured")
        assert (goal.median is None) == (goal.state == "not measured")


def test_growth_with_flows_is_a_ratio_of_two_figures_of_ours() -> None:
    p17 = judged(results())[-1]
    assert (p17.goal, p17.low, p17.high, p17.state) == ("P17", 1.0, 1.25, "stretch")


@pytest.mark.parametrize(
    ("goal", "name", "version", "least"),
    [
        ("P9", "tinc", "tinc 1.0.36-2+b2", 1.5),
        ("P9", "tinc", "tinc 1.1~pre18-2", 1.3),
        ("P7", "wireguard-go", "wireguard-go 0.0.20220316-1+b4", 8),
        ("P7", "wireguard-go", "wireguard-go 0.0.20250522-1", 1.25),
    ],
)
def test_what_is_demanded_depends_on_how_new_the_others_are(goal: str, name: str, version: str, least: float) -> None:
    assert next(bound.least for bound in bounds({name: version}) if bound.goal == goal) == least


def test_what_no_run_can_measure_is_said_too() -> None:
    told = " ".join(reasons(results(), judged(results())))
    for wanted in ("older design is in no package", "newest wireguard-go", "tinc 1.1", "part `rooms`: not asked for"):
        assert wanted in told


def test_the_sum_names_every_state() -> None:
    assert summed_up([]) == "0 stretch, 0 reached, 0 no stretch, 0 missed, 0 not measured"
