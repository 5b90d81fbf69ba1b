"""docs/faults.md as the suite writes it."""

from __future__ import annotations

from collections.abc import Sequence

from lab.faults.case import Report
from lab.faults.report import markdown


def page(reports: Sequence[Report]) -> str:
    """The whole page."""
    return markdown(reports) + "\n"
