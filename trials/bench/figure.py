"""A measured value with its spread, and under which conditions it holds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Figure(NamedTuple):
    """One measured value: median, lowest and highest of the rounds. The rest is said where there are frames: whose it
    is and on which path, what was sent, which way, and how much of it was lost (percent, the worst round); `beside` is
    how many cores others used just before its turns (the worst)."""

    name: str
    unit: str
    median: float
    low: float
    high: float
    key: str = ""
    path: str = ""
    contestant: str = ""
    frames: str = ""
    direction: str = ""
    loss_percent: float | None = None
    beside_cores: float | None = None
    remark: str = ""
    values: tuple[float, ...] = ()
    rounds: tuple[int, ...] = ()
    """Of each value."""


def summary(name: str, unit: str, values: Sequence[float]) -> Figure:
    """The figure of the rounds' values."""
    median = statistics.median(values)
    return Figure(
        name, unit, median, min(values), max(values), values=tuple(values), rounds=tuple(range(1, len(values) + 1))
    )
