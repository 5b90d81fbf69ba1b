"""Play one case on a stage: traffic before, while and after the fault, then the report and its judgement."""

from __future__ import annotations

import time

from trials.faults.account import Window
from trials.faults.case import Case, CaseReport, judge
from trials.faults.stage import FaultStage

_LEAD_S, _TRAIL_S = 0.3, 0.3


def play(stage: FaultStage, case: Case, seconds: float) -> CaseReport:
    """Play the case on the stage, and judge it. Where it broke something for good, the stage is torn down behind it."""
    try:
        stage.set_up(case.setting)
        report = _play(stage, case, seconds)
    except BaseException:
        stage.tear_down()
        raise
    if case.renews or report.faults:
        stage.tear_down()
    return report


def _play(stage: FaultStage, case: Case, seconds: float) -> CaseReport:
    stage.begin()
    with stage.talking(case.flows, case.rate):
        stage.until(
            lambda: all(one.answers_since(0) and one.streams_since(0) for one in stage.traffic.values()),
            "every flow passes before anything was done",
        )
        since_ns = time.monotonic_ns()
        stage.hold(_LEAD_S)
        before, pid = stage.measured(), stage.gateway.pid
        beyond, beyond_is = stage.drops_beyond(), stage.process_beyond()
        case.inject(stage, seconds)
        assert 0 < stage.began_ns < stage.over_ns, f"{case.name} does not say when"
        surviving = {flow.name for flow in case.tcp}
        for name, one in stage.traffic.items():
            stage.becomes(lambda one=one: one.answers_since(stage.over_ns), case.recovers_s)  # type: ignore[misc]
            if name in surviving:
                stage.becomes(lambda one=one: one.streams_since(stage.over_ns) or one.is_broken, case.recovers_s)  # type: ignore[misc]
        stage.hold(_TRAIL_S)
        for one in stage.traffic.values():
            one.end()
        connections = {name: one.document() for name, one in stage.traffic.items()}
        if (stage.gateway.pid == pid) == case.restarts:
            stage.faults.append("the daemon was started anew" if not case.restarts else "the daemon is the same")
        after = stage.measured(before[2] if stage.gateway.pid == pid else None)
        window = Window(since_ns, stage.began_ns, stage.over_ns)
        accounts = [one.account(window) for one in stage.traffic.values()]
    earlier = before[0] if stage.gateway.pid == pid else {}
    report = CaseReport(
        case=case.name,
        what=case.what,
        lasted_s=(stage.over_ns - stage.began_ns) / 1e9,
        accounts=accounts,
        connections=connections,
        drops=_more(after[0], earlier),
        drops_beyond=_more(stage.drops_beyond(), beyond if stage.process_beyond() == beyond_is else {}),
        memory_kb=(before[1], after[1]),
        descriptors=(before[2], after[2]),
        notes=stage.notes,
    )
    report.faults = [*stage.faults, *judge(case, report)]
    if case.check is not None:
        report.faults += case.check(report, stage.wire_counts)
    return report


def _more(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    """Counts that grew in between, and by how much."""
    return {reason: more for reason, count in after.items() if (more := count - before.get(reason, 0))}
