"""Reports as a table for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trials.faults.case import CaseReport

HEADINGS = (
    "case",
    "fault",
    "lasted",
    "sent",
    "lost there",
    "lost back",
    "refused",
    "twice",
    "late",
    "longest gap",
    "again after",
    "TCP",
    "drops in the gateway",
    "at the other end",
    "memory",
    "descriptors",
)

COSTS = ("fault", "lasted", "sent", "lost there", "lost back", "refused", "longest gap", "again after", "TCP")
FINDINGS = ("case", "drops in the gateway", "at the other end", "twice", "late", "memory", "descriptors")


def row(report: CaseReport) -> tuple[str, ...]:
    """The cells of a report, in the order of `HEADINGS`; of all flows together, the longest times among them."""
    accounts = report.accounts
    after = [one.after_ms for one in accounts]
    known = [ms for ms in after if ms is not None]
    before_kb, after_kb = report.memory_kb
    broken = [flow for flow, end in report.connections.items() if not end["ok"]]
    before, behind = report.descriptors
    return (
        report.case,
        report.what,
        f"{report.lasted_s:.1f} s",
        str(sum(one.sent for one in accounts)),
        str(sum(one.lost_there for one in accounts)),
        str(sum(one.lost_back for one in accounts)),
        str(sum(one.refused for one in accounts)),
        str(sum(one.duplicated for one in accounts)),
        str(sum(one.late for one in accounts)),
        _milliseconds(max(one.gap_ms for one in accounts)),
        _milliseconds(max(known)) if len(known) == len(after) else "never",
        f"{len(report.connections) - len(broken)} of {len(report.connections)} whole",
        _counted(report.drops),
        _counted(report.drops_beyond),
        f"{before_kb / 1024:.1f} to {after_kb / 1024:.1f} MB",
        "?" if before is None or behind is None else f"{before} to {behind}",
    )


def _counted(drops: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(drops.items())) or "none"


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"


def text(report: CaseReport) -> str:
    """A report for people, several lines."""
    cells = dict(zip(HEADINGS, row(report), strict=True))
    lines = [f"{cells.pop('case')}: {cells.pop('fault')}"]
    lines.append("  " + ", ".join(f"{name} {value}" for name, value in cells.items()))
    lines += [
        f"    {one.flow}: {one.sent} sent, {one.lost_there} + {one.lost_back} lost, {one.refused} refused, "
        f"{one.told} told, gap {_milliseconds(one.gap_ms)}, "
        f"again after {'-' if one.after_ms is None else _milliseconds(one.after_ms)}"
        for one in report.accounts
    ]
    lines += [f"  note: {note}" for note in report.notes]
    lines += [f"  FAULT: {fault}" for fault in report.faults]
    return "\n".join(lines)


def table(reports: Sequence[CaseReport], headings: Sequence[str]) -> str:
    """Some of the columns in Markdown."""
    chosen = [HEADINGS.index(heading) for heading in headings]
    lines = [_line(headings), _line("---" for _ in headings)]
    lines += [_line(row(report)[at] for at in chosen) for report in reports]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
