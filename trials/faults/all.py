"""All cases, in an order that rebuilds little in between."""

from __future__ import annotations

from trials.faults import clocks, leases, links, neighbours, processes, tunnels, wires
from trials.faults.case import Case

_EVERY = (*links.CASES, *neighbours.CASES, *leases.CASES, *processes.CASES, *clocks.CASES, *tunnels.CASES, *wires.CASES)

CASES: tuple[Case, ...] = tuple(
    sorted(_EVERY, key=lambda case: (case.setting.end, case.setting.outside, case.setting.isp, case.setting.is_leased))
)
