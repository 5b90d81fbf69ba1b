"""A measured value with its spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Figure(NamedTuple):
    """One measured value: median, lowest and highest of the rounds."""

    name: str
    unit: str
    median: float
    low: float
    high: float


def summary(name: str, unit: str, values: Sequence[float]) -> Figure:
    """The figure of the rounds' values."""
    return Figure(name, unit, statistics.median(values), min(values), max(values))
