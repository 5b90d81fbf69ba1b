"""Bars with spread whiskers as SVG, written as plain text: one panel a measure, one bar a contestant.

Colours are readable on light and dark ground. The dashed line is the bound that ours is held against in that panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from trials.bench.contestants import OFFLOAD, OURS, PLAIN, TUNNEL
from trials.bench.goals import Judged
from trials.bench.report import number
from trials.bench.results import Results
from trials.bench.turn import MEASURES

PANELS = (
    (OFFLOAD, "tcp_1_up"),
    (OFFLOAD, "tcp_1_down"),
    (OFFLOAD, "udp_kpps"),
    (OFFLOAD, "calls"),
    (TUNNEL, "tcp_1_up"),
    (TUNNEL, "tcp_1_down"),
    (TUNNEL, "udp_kpps"),
    (TUNNEL, "calls"),
)
_COLUMNS = 2
_WIDTH, _BAR, _GAP, _LABEL = 430, 16, 6, 110
_HEAD, _FOOT = 42, 12
_ROOM = 70  # right of the longest bar, for its value
_INK, _GRID, _BOUND = "#737373", "#a3a3a3", "#dc2626"
_COLOURS = {OURS: "#2563eb", PLAIN: "#60a5fa"}
_OTHERS = "#9ca3af"


class Bar(NamedTuple):
    """One contestant's figure."""

    label: str
    median: float
    low: float
    high: float


class Panel(NamedTuple):
    """One measure of one path. `bound`: where the lowest goal lies in the panel's own unit; None without one."""

    title: str
    bars: list[Bar]
    bound: float | None
    bound_text: str = ""


def panels(results: Results, goals: Sequence[Judged]) -> list[Panel]:
    """Those that have at least one bar."""
    found = []
    for path, key in PANELS:
        bars = []
        for taker in results.takers:
            figure = results.figure(path, taker.name, key) if taker.path == path else None
            if figure is not None:
                bars.append(Bar(taker.name, figure.median, figure.low, figure.high))
        if bars:
            measure = MEASURES[key]
            bound, told = _bound(results, goals, path, key)
            found.append(Panel(f"{path}: {measure.name}, {measure.unit}", bars, bound, told))
    return found


def _bound(results: Results, goals: Sequence[Judged], path: str, key: str) -> tuple[float | None, str]:
    """The hardest `at least` of ours in this panel that is a multiple of somebody's figure here."""
    name = MEASURES[key].name.removesuffix(", up").removesuffix(", down")
    way = key.rpartition("_")[2] if key.startswith("tcp") else ""
    hardest: tuple[float, str] | None = None
    for goal in goals:
        fits = goal.what.startswith(f"{path} {name}") and goal.what.endswith(way) and goal.least is not None
        by = results.figure(path, goal.against, key)
        if fits and by is not None and goal.least is not None:
            mark = goal.least * by.median, f"{goal.goal}: {number(goal.least)} x {goal.against}"
            hardest = max(hardest, mark) if hardest is not None else mark
    return hardest if hardest is not None else (None, "")


def svg(found: Sequence[Panel], caption: str) -> str:
    """The picture."""
    rows = [found[at : at + _COLUMNS] for at in range(0, len(found), _COLUMNS)]
    heights = [_HEAD + max(len(panel.bars) for panel in row) * (_BAR + _GAP) + _FOOT for row in rows]
    width, height = _COLUMNS * _WIDTH, sum(heights) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11" fill="{_INK}">',
        f"<title>{escape(caption)}</title>",
    ]
    top = 0
    for row, row_height in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            parts += _drawn(panel, column * _WIDTH, top)
        top += row_height
    parts.append(f'<text x="8" y="{top + 14}">{escape(caption)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _drawn(panel: Panel, left: float, top: float) -> list[str]:
    longest = max([bar.high for bar in panel.bars] + ([panel.bound] if panel.bound is not None else [])) or 1.0
    scale = (_WIDTH - _LABEL - _ROOM) / longest
    start = left + _LABEL
    parts = [f'<text x="{left + 8:.0f}" y="{top + 16:.0f}" font-weight="bold">{escape(panel.title)}</text>']
    at = top + _HEAD
    for bar in panel.bars:
        middle = at + _BAR / 2
        length, low, high = (start + value * scale for value in (bar.median, bar.low, bar.high))
        colour = _COLOURS.get(bar.label, _OTHERS)
        parts += [
            f'<text x="{start - 6:.0f}" y="{middle + 4:.1f}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect x="{start:.1f}" y="{at:.1f}" width="{length - start:.1f}" height="{_BAR}" fill="{colour}"/>',
            f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {middle - 4:.1f}v8M{high:.1f} {middle - 4:.1f}v8" '
            f'stroke="{_INK}" fill="none"/>',
            f'<text x="{high + 5:.1f}" y="{middle + 4:.1f}">{number(bar.median)}</text>',
        ]
        at += _BAR + _GAP
    parts.append(f'<path d="M{start:.1f} {top + _HEAD - 4:.1f}V{at:.1f}" stroke="{_GRID}"/>')
    if panel.bound is not None:
        x = start + panel.bound * scale
        parts += [
            f'<path d="M{x:.1f} {top + _HEAD - 6:.1f}V{at:.1f}" stroke="{_BOUND}" stroke-dasharray="4 3"/>',
            f'<text x="{x:.1f}" y="{top + _HEAD - 9:.1f}" text-anchor="middle" fill="{_BOUND}" font-size="9">'
            f"{escape(panel.bound_text)}</text>",
        ]
    return parts
