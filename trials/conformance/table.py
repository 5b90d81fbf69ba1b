"""The checklist, row by row: held, failing or not yet, on which egresses, and the test that shows it.

    python -m trials.conformance [-j]

A test belongs to the rows that its docstring's first line begins with (`U1, U3: ...`) or that its name carries
(`test_a21_...`). It shows them on the egress that it is parametrised with; without such a parameter, on those of tap1
and the tunnel that its scenarios moved frames through (`tests/conformance` writes that down). The rows stand in
`trials.conformance.checklist`. Exit code 1 where a row is failing, or held on one egress where it should be on both.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from trials.conformance.checklist import BOTH, ROWS, Row

_BY_LOWER = {row.lower(): row for row in ROWS}
_IN_DOCSTRING = re.compile(r"^((?:[A-Z]\d+[a-d]?)(?:(?:,\s*|\s+and\s+)[A-Z]\d+[a-d]?)*)\s*[:(]")
_PORTS = {"O": "tap1", "V": "vpn"}
LEVELS = "MSDY"


def rows_of(name: str, docstring: str | None) -> set[str]:
    """The rows that a test shows."""
    found = {_BY_LOWER[word] for word in re.split(r"[_\[]", name) if word in _BY_LOWER}
    match = _IN_DOCSTRING.match((docstring or "").strip())
    if match:
        found |= {row for row in re.findall(r"[A-Z]\d+[a-d]?", match[1]) if row in ROWS}
    return found


def egress_of(parameters: Mapping[str, object]) -> frozenset[str] | None:
    """The egress that a test is parametrised with; None where its parameters name none."""
    named = parameters.get("egress")
    if isinstance(named, IntEnum):  # a test of the room `alias` alone
        named = {"TAP1": "O", "VPN": "V"}.get(named.name)
    return frozenset((named,)) if isinstance(named, str) and named in BOTH else None


@dataclass(slots=True)
class ShownRows:
    """One test: its rows, where it shows them, how it went."""

    rows: set[str]
    egresses: frozenset[str] | None
    passed: bool = False
    failed: bool = False
    moved: set[str] = field(default_factory=set)

    @property
    def where(self) -> frozenset[str]:
        """The egresses on which its rows are shown."""
        return frozenset(self.moved) if self.egresses is None else self.egresses


class Collector:
    """A pytest plugin that writes down which rows each test shows, where, and how it went."""

    def __init__(self) -> None:
        self.tests: dict[str, ShownRows] = {}

    def pytest_collection_modifyitems(self, items: list[object]) -> None:
        """Read the rows off every test and leave out those that show none."""
        kept = []
        for item in items:
            function = getattr(item, "function", None)
            rows = rows_of(item.name, getattr(function, "__doc__", None))  # type: ignore[attr-defined] # pytest.Item
            if rows:
                parameters = getattr(getattr(item, "callspec", None), "params", {})
                self.tests[item.nodeid] = ShownRows(rows, egress_of(parameters))  # type: ignore[attr-defined] # pytest.Item
                kept.append(item)
        items[:] = kept

    def pytest_runtest_logreport(self, report: object) -> None:
        """Remember each outcome."""
        test = self.tests[report.nodeid]  # type: ignore[attr-defined] # pytest.TestReport
        test.failed |= report.failed  # type: ignore[attr-defined] # pytest.TestReport
        test.passed |= report.when == "call" and report.passed  # type: ignore[attr-defined] # pytest.TestReport
        for name, value in report.user_properties:  # type: ignore[attr-defined] # pytest.TestReport
            if name == "egresses":
                test.moved |= BOTH & set(value)


@dataclass(frozen=True, slots=True)
class Finding:
    """The state of one row: `state` is held, failing or not yet; `shown` are the egresses, `test` the first test
    that shows it (with how many more)."""

    row: Row
    state: str
    shown: frozenset[str]
    test: str | None

    @property
    def is_one_sided(self) -> bool:
        """Held, but not on every egress on which it should be."""
        return self.state == "held" and not self.shown >= self.row.egresses

    @property
    def words(self) -> str:
        """The state as people read it."""
        if self.is_one_sided:
            return f"held on {' '.join(_PORTS[port] for port in sorted(self.shown)) or 'no egress'} only"
        return f"comes with {self.row.comes_with}" if self.state == "not yet" and self.row.comes_with else self.state

    @property
    def egresses(self) -> str:
        """Where it was shown, or a dash where that makes no difference."""
        return " ".join(_PORTS[port] for port in sorted(self.shown)) if self.row.egresses else "-"


def table(tests: Mapping[str, ShownRows]) -> list[Finding]:
    """One finding a row, in the checklist's order."""
    by_row: dict[str, dict[str, ShownRows]] = defaultdict(dict)
    for name, test in tests.items():
        for row_id in test.rows:
            by_row[row_id][name] = test
    found = []
    for row in ROWS.values():
        mine = by_row.get(row.id, {})
        if any(test.failed for test in mine.values()):
            state = "failing"
        elif any(test.passed for test in mine.values()):
            state = "held"
        else:
            state = "not yet"
        shown = frozenset(port for test in mine.values() if test.passed for port in test.where)
        names = sorted({name.partition("[")[0] for name in mine})
        first = names[0] + (f" (+{len(names) - 1})" if len(names) > 1 else "") if names else None
        found.append(Finding(row, state, shown, first))
    return found


def counts(findings: Sequence[Finding]) -> list[str]:
    """The lines below the table: what is held by level, what is held on one egress only, what waits for what."""
    held = [finding for finding in findings if finding.state == "held"]
    by_level = ", ".join(f"{level} {sum(f.row.strictest == level for f in held)}" for level in LEVELS)
    sided = [finding.row.id for finding in held if finding.is_one_sided]
    both = sum(bool(finding.row.egresses) and not finding.is_one_sided for finding in held)
    failing = [finding.row.id for finding in findings if finding.state == "failing"]
    missing = [finding for finding in findings if finding.state == "not yet"]
    lines = [
        f"{len(held)} held ({by_level}), {len(failing)} failing, {len(missing)} not yet",
        f"{both} of them shown on both egresses, {len(sided)} on one only" + (f": {' '.join(sided)}" if sided else ""),
    ]
    for feature in dict.fromkeys(finding.row.comes_with for finding in missing):
        names = [finding.row.id for finding in missing if finding.row.comes_with == feature]
        lines.append(f"{len(names)} {f'come with {feature}' if feature else 'are missing'}: {' '.join(names)}")
    return lines


def run(*folders: str) -> tuple[list[Finding], int]:
    """Run the tests below `tests` (or these folders of it) that carry a row; the findings, and pytest's exit code."""
    import pytest  # noqa: PLC0415 - a development dependency, wanted by this command alone

    collector = Collector()
    root = Path(__file__).resolve().parents[2] / "tests"
    where = [str(root / folder) for folder in folders] or [str(root)]
    ended = pytest.main(["-q", "--no-header", "--no-summary", "-p", "no:terminalreporter", *where], [collector])
    return table(collector.tests), int(ended)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests that carry a row and print the table."""
    parser = argparse.ArgumentParser(prog="trials.conformance.table", description="state of every row of the checklist")
    parser.add_argument("-j", "--json", action="store_true")
    options = parser.parse_args(arguments)
    print("running every test that carries a row, about two minutes ...", file=sys.stderr, flush=True)
    findings, ended = run()
    if options.json:
        print(json.dumps({"version": 1, "rows": [_document(finding) for finding in findings]}, indent=1))
    else:
        section = None
        for finding in findings:
            if finding.row.section != section:
                section = finding.row.section
                print(f"\n{section}")
            print(
                f"  {finding.row.id:<4} {finding.row.level:<6} {finding.words:<8} {finding.egresses:<9} "
                f"{finding.test or ''}".rstrip()
            )
        print("", *counts(findings), sep="\n")
    if ended not in (0, 1):
        print(f"pytest could not run the tests (exit code {ended}); `make test` says why", file=sys.stderr)
        return 1
    return 1 if any(finding.state == "failing" or finding.is_one_sided for finding in findings) else 0


def _document(finding: Finding) -> dict[str, object]:
    return {
        "section": finding.row.section,
        "id": finding.row.id,
        "level": finding.row.level,
        "state": finding.state,
        "egresses": [_PORTS[port] for port in sorted(finding.shown)],
        "demanded": [_PORTS[port] for port in sorted(finding.row.egresses)],
        "why_not_both": finding.row.why_not_both,
        "comes_with": finding.row.comes_with,
        "test": finding.test,
    }
