"""A case, its report, and the rules that every report must keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lab.flows import FLOWS, PacketFlow
from trials.faults.account import FlowLosses
from trials.faults.setting import ORDINARY_SETTING, Setting
from trials.faults.stage import FaultStage

MOST_GROWTH_KB = 16 * 1024
"""Of the daemon's memory in one case: buffers that a first use makes, and what Python keeps of them."""

ORDINARY = frozenset({"arp.not_for_us", "alias.no_link", "ip.martian_source"})
"""The frames that kernels send beside the traffic: ARP among others, the ends of connections of the case before, and
bridges without an address."""


@dataclass(frozen=True)
class Case:
    """A fault. `inject(stage, seconds)` brings it about, says `stage.began()` and `stage.over()`, and leaves the lab
    as it was; `seconds` is how long a fault lasts that has a length, `short_s` the same in the tests.

    `touches`: the flows that may lose anything. `drops`: reasons that the gateway may count meanwhile. `tcp`: the
    flows whose connections must survive. `renews`: the daemon is started anew behind it.
    """

    name: str
    what: str
    inject: Callable[[FaultStage, float], None]
    seconds: float = 3.0
    short_s: float = 1.0
    flows: tuple[PacketFlow, ...] = FLOWS
    touches: tuple[PacketFlow, ...] = FLOWS
    drops: frozenset[str] = frozenset()
    tcp: tuple[PacketFlow, ...] = FLOWS
    setting: Setting = ORDINARY_SETTING
    rate: float = 100.0
    recovers_s: float = 20.0
    renews: bool = False
    restarts: bool = False
    """The daemon that is there at the end is another one."""
    check: Callable[[CaseReport, dict[str, int]], list[str]] | None = None
    """A further demand on the report, given what a wire has done."""
    is_tested: bool = True
    """False where even its short form takes longer than a test may."""


@dataclass
class CaseReport:
    """The cost of a case. `connections`: by flow what became of its TCP connection (`trials.traffic.lasting`). `drops`:
    in the gateway; `drops_beyond`: at the tunnel's other end, where that is ours."""

    case: str
    what: str
    lasted_s: float
    accounts: list[FlowLosses]
    connections: Mapping[str, Mapping[str, object]]
    drops: dict[str, int]
    drops_beyond: dict[str, int]
    memory_kb: tuple[int, int]
    descriptors: tuple[int | None, int | None]
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Datagrams of all flows."""
        return sum(one.lost for one in self.accounts)


def judge(case: Case, report: CaseReport) -> list[str]:
    """The rules that the report breaks, as sentences; empty where all is well."""
    found = []
    touched = {flow.name for flow in case.touches}
    surviving = {flow.name for flow in case.tcp}
    for one in report.accounts:
        if one.after_ms is None:
            found.append(f"{one.flow}: nothing passes any more")
        if one.flow not in touched and (one.lost or one.refused or one.told):
            found.append(f"{one.flow}: lost {one.lost}, {one.refused} refused, though the fault does not concern it")
        if one.strays:
            found.append(f"{one.flow}: {one.strays} were lost outside the time of the fault")
    found += [
        f"{flow}: the TCP connection did not survive: {end}"
        for flow, end in report.connections.items()
        if flow in surviving and not end["ok"]
    ]
    unexplained = {reason: count for reason, count in report.drops.items() if reason not in case.drops | ORDINARY}
    if unexplained:
        found.append(f"the gateway dropped for a reason that is not the fault's: {unexplained}")
    before_kb, after_kb = report.memory_kb
    if after_kb - before_kb > MOST_GROWTH_KB:
        found.append(f"the daemon's memory grew from {before_kb} to {after_kb} KB")
    before, after = report.descriptors
    if before is not None and after is not None and after > before and not case.restarts:
        found.append(f"the daemon had {before} descriptors and has {after}")
    return found
