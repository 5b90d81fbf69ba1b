"""All cases, in an order that rebuilds little in between."""

from __future__ import annotations

from lab.faults import links
from lab.faults.case import Case

CASES: tuple[Case, ...] = (*links.CASES,)
