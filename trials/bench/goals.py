"""The goals P1 to P17 and what this run says of each: as a ratio to another contestant of the same run where the goal
is one, because absolute figures do not travel.

A ratio is formed within each round and then summarised, so what the machine did in a round meets both sides. The older
design (a tinc fork with libalias) is in no package: it stands here as the share of the kernel's figure that it had when
both were measured on one machine, and a goal that is a multiple of it is marked so.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from trials.bench.contestants import KERNEL, OFFLOAD, OURS, PLAIN, TUNNEL
from trials.bench.figure import Figure
from trials.bench.gateway_cases import FEW_FLOWS, GATEWAY, LIVE_FLOWS
from trials.bench.results import Results
from trials.bench.rooms import ROOMS

OLDER = {"tcp_1_up": 707 / 18_347, "tcp_1_down": 717 / 17_768, "udp_kpps": 90.5 / 207}
"""The older design's share of the kernel's figures; its UDP rate was 79 to 102 kpps."""

_UDP, _CALLS = "64-byte UDP, loss < 1 %", "new TCP connections"
_NOT_COMPILED = "not compiled: "
_LOOK_UPS = {1_000: (30.0, 60.0), 65_000: (12.0, 25.0), 1_000_000: (5.0, 10.0)}
"""Entries of the table: millions of look-ups a second at least, and stretch."""

Kind = Literal["value", "ratio", "difference"]
State = Literal["stretch", "reached", "no stretch", "missed", "not measured"]
STATES: tuple[State, ...] = get_args(State)


class Bound(NamedTuple):
    """One line of the goals. `of` and `by` are (path, contestant, key); `least` or `stretch` is None where the goal has
    none. `share` of `by` is what `of` is held against."""

    goal: str
    what: str
    of: tuple[str, str, str]
    least: float | None
    stretch: float | None
    kind: Kind = "value"
    by: tuple[str, str, str] | None = None
    against: str = ""
    unit: str = ""
    wants_more: bool = True
    share: float = 1.0


class Judged(NamedTuple):
    """A bound and what was measured; `median`, `low`, `high` are None where it was not, and `why` says why."""

    goal: str
    what: str
    against: str
    unit: str
    median: float | None
    low: float | None
    high: float | None
    least: float | None
    stretch: float | None
    wants_more: bool
    state: State
    why: str = ""


def _tcp(goal: str, by: str, path: str, least: float, stretch: float, ours: str = OURS) -> list[Bound]:
    return [
        _times(goal, f"{path} TCP, 1 stream, {way}", (path, ours, f"tcp_1_{way}"), by, least, stretch)
        for way in ("up", "down")
    ]


def _times(
    goal: str, what: str, of: tuple[str, str, str], by: str, least: float | None, stretch: float | None
) -> Bound:
    return Bound(goal, what, of, least, stretch, "ratio", (of[0], by, of[2]), by, f"x {by}")


def _older(goal: str, what: str, of: tuple[str, str, str], least: float, stretch: float | None) -> Bound:
    share = OLDER[of[2]]
    against = f"older design, as {share:.3f} of the kernel"
    return Bound(goal, what, of, least, stretch, "ratio", (of[0], KERNEL, of[2]), against, "x older", share=share)


def _most(goal: str, what: str, of: tuple[str, str, str], least: float, stretch: float, unit: str) -> Bound:
    return Bound(goal, what, of, least, stretch, against="absolute", unit=unit, wants_more=False)


def bounds(versions: Mapping[str, str]) -> list[Bound]:
    """All of them, in the order of the goals. The demands against tinc and wireguard-go depend on how new theirs are:
    `versions` by contestant."""
    return [*_offload_bounds(), *_tunnel_bounds(versions), *_gateway_bounds()]


def _offload_bounds() -> list[Bound]:
    """P1 to P6: the offload path."""
    return [
        *_tcp("P1", KERNEL, OFFLOAD, 0.85, 1.0),
        *(
            _older("P1", f"offload TCP, 1 stream, {way}", (OFFLOAD, OURS, f"tcp_1_{way}"), 20, None)
            for way in ("up", "down")
        ),
        *(
            _most("P2", f"offload CPU per GB, {way}", (OFFLOAD, OURS, f"cpu_gb_{way}"), 0.40, 0.28, "s/GB")
            for way in ("up", "down")
        ),
        _times("P3", f"offload {_UDP}", (OFFLOAD, OURS, "udp_kpps"), KERNEL, 0.85, 1.0),
        _times("P3", f"offload {_UDP}", (OFFLOAD, OURS, "udp_kpps"), "pasta", None, 1.0),
        _most("P4", "offload CPU per million packets", (OFFLOAD, OURS, "cpu_mpkt"), 4.5, 3.6, "s"),
        _times("P5", f"offload {_CALLS}", (OFFLOAD, OURS, "calls"), "pasta", 1.0, None),
        _times("P5", f"offload {_CALLS}", (OFFLOAD, OURS, "calls"), KERNEL, None, 0.85),
        Bound(
            "P6",
            "offload ping idle, p50",
            (OFFLOAD, OURS, "ping_p50_us"),
            45,
            25,
            "difference",
            (OFFLOAD, KERNEL, "ping_p50_us"),
            KERNEL,
            "us more",
            wants_more=False,
        ),
        _most("P6", "offload ping under TCP, p99", (OFFLOAD, OURS, "ping_load_p99_us"), 1_500, 300, "us"),
    ]


def _tunnel_bounds(versions: Mapping[str, str]) -> list[Bound]:
    """P7 to P10: the tunnel path."""
    tinc_udp = 1.3 if is_new("tinc", versions) else 1.5
    wireguard = (1.25, 1.45) if is_new("wireguard-go", versions) else (8, 9.5)
    return [
        *_tcp("P7", "wireguard-go", TUNNEL, *wireguard),
        *_tcp("P7", "tinc", TUNNEL, 6, 7),
        *(
            _most("P8", f"tunnel CPU per GB, {end} end, {way}", (TUNNEL, OURS, f"cpu_gb_{key}{way}"), 1.9, 1.6, "s/GB")
            for end, key in (("near", ""), ("far", "far_"))
            for way in ("up", "down")
        ),
        _times("P9", f"tunnel {_UDP}", (TUNNEL, OURS, "udp_kpps"), "tinc", tinc_udp, 1.8),
        _times("P10", f"tunnel {_CALLS}", (TUNNEL, OURS, "calls"), "tinc", 1.0, 1.4),
    ]


def _gateway_bounds() -> list[Bound]:
    """P11 to P17: memory, the plain twins, the rooms, start and reload, many flows."""
    return [
        _most("P11", f"memory, {LIVE_FLOWS:,} links, 10,000 prefixes", (GATEWAY, OURS, "rss_full_mb"), 90, 60, "MB"),
        *(
            _older("P12", f"{_NOT_COMPILED}offload TCP, 1 stream, {way}", (OFFLOAD, PLAIN, f"tcp_1_{way}"), 8, 14)
            for way in ("up", "down")
        ),
        _older("P12", f"{_NOT_COMPILED}offload {_UDP}", (OFFLOAD, PLAIN, "udp_kpps"), 1, 1.6),
        *(bound._replace(what=_NOT_COMPILED + bound.what) for bound in _tcp("P12", "tinc", TUNNEL, 2, 3, PLAIN)),
        *(
            Bound(
                "P13",
                f"flow-table look-ups, {entries:,} entries",
                (ROOMS, OURS, f"look_ups_{entries}"),
                least,
                stretch,
                against="absolute",
                unit="M/s",
            )
            for entries, (least, stretch) in _LOOK_UPS.items()
        ),
        Bound("P14", "new flows through the walk", (ROOMS, OURS, "new_flows"), 60, 120, against="absolute", unit="k/s"),
        _most("P15", "start to the first forwarded frame", (GATEWAY, OURS, "start_s"), 1.0, 0.5, "s"),
        _most("P16", "reload under load: frames lost", (GATEWAY, OURS, "reload_lost"), 0, 0, "frames"),
        _most("P16", "reload under load: longest pause", (GATEWAY, OURS, "reload_pause_ms"), 10, 2, "ms"),
        Bound(
            "P17",
            f"CPU per packet, {LIVE_FLOWS:,} flows against {FEW_FLOWS}",
            (GATEWAY, OURS, f"packet_us_{LIVE_FLOWS}"),
            1.5,
            1.15,
            "ratio",
            (GATEWAY, OURS, f"packet_us_{FEW_FLOWS}"),
            f"{FEW_FLOWS} flows",
            "x",
            wants_more=False,
        ),
    ]


def judged(results: Results) -> list[Judged]:
    """The verdict of this run on each goal."""
    return [_judge(bound, results) for bound in bounds(_versions(results))]


def is_new(name: str, versions: Mapping[str, str]) -> bool:
    """Whether a version is of those with which the goals were set: tinc 1.1, a wireguard-go of 2025 or later."""
    version = versions.get(name, "")
    if name == "tinc":
        return " 1.1" in version
    dated = re.search(r"0\.0\.(\d{4})", version)
    return dated is not None and int(dated[1]) >= 2025


def not_held(results: Results) -> list[str]:
    """Contestants that the goals name and that this run, or any run of this kind, does not have."""
    versions = _versions(results)
    found = ["P1, P12: the older design is in no package; it stands here as its share of the kernel's figure"]
    if not is_new("wireguard-go", versions):
        found.append("P7: the newest wireguard-go; against an older one more is demanded (8 times)")
    if not is_new("tinc", versions):
        found.append("P7, P9, P10, P12: tinc 1.1; of 1.0 P9 demands more (1.5 times)")
    return found


def reasons(results: Results, goals: Sequence[Judged]) -> list[str]:
    """Everything that was not measured, each with why."""
    by_goal = sorted({(int(goal.goal[1:]), f"{goal.goal}: {goal.why}") for goal in goals if goal.why})
    return [*results.not_measured, *(told for _, told in by_goal), *not_held(results)]


def _versions(results: Results) -> dict[str, str]:
    return {taker.name: taker.version for taker in results.takers if not taker.absent}


def compared(kind: Kind, of: Figure, by: Figure | None, share: float = 1.0) -> list[float]:
    """The values that a bound is held against: of the rounds that both sides have."""
    if by is None:
        return list(of.values)
    other = dict(zip(by.rounds, by.values, strict=True))
    pairs = [
        (value, share * other[number]) for number, value in zip(of.rounds, of.values, strict=True) if number in other
    ]
    if kind == "difference":
        return [value - against for value, against in pairs]
    return [value / against for value, against in pairs if against]


def _judge(bound: Bound, results: Results) -> Judged:
    of = results.figure(*bound.of)
    by = results.figure(*bound.by) if bound.by else None
    values = (
        compared(bound.kind, of, by, bound.share) if of is not None and (by is not None or bound.by is None) else []
    )
    head = bound.goal, bound.what, bound.against, bound.unit
    tail = bound.least, bound.stretch, bound.wants_more
    if not values:
        why = _why(bound, results, of is not None)
        return Judged(*head, None, None, None, *tail, "not measured", why)
    median = statistics.median(values)
    return Judged(*head, median, min(values), max(values), *tail, state(median, *tail))


def state(median: float, least: float | None, stretch: float | None, wants_more: bool) -> State:
    """How a value stands to its bounds. A line without `least` can only be `stretch` or `no stretch`."""

    def holds(mark: float | None) -> bool:
        return mark is not None and (median >= mark if wants_more else median <= mark)

    if holds(stretch):
        return "stretch"
    if least is None:
        return "no stretch"
    return "reached" if holds(least) else "missed"


def _why(bound: Bound, results: Results, has_of: bool) -> str:
    path, name, _ = bound.by if has_of and bound.by else bound.of
    for taker in results.takers:
        if (taker.path, taker.name) == (path, name) and taker.absent:
            return f"{name} is absent: {taker.absent}"
    if path in (OFFLOAD, TUNNEL) and not any((turn.path, turn.contestant) == (path, name) for _, turn in results.turns):
        return f"{name} on the {path} path did not take part"
    return "no value in this run; see what was not measured"


def summed_up(goals: Sequence[Judged]) -> str:
    """How many lines stand where."""
    return ", ".join(f"{sum(goal.state == name for goal in goals)} {name}" for name in STATES)
