"""The checklist, row by row: held, failing or not yet, and the test that shows it.

    python -m bench.conformance [-j]

A test belongs to the rows that its docstring's first line begins with (`U1, U3: ...`) or that its name carries
(`test_a21_...`). The rows themselves are listed here by section with their level; what they demand is said in the
checklist and in the tests. Exit code 1 where a row is failing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

ROWS: dict[str, str] = {
    "1a UDP (RFC 4787)": "U1 U2 U3 U3a U3b U4 U5 U5a U6 U6a U7 U8 U9 U9a U10 U11 U12 U12a U12b U13 U13a U14",
    "1b TCP (RFC 5382)": "T1 T2 T2a T3 T4 T5 T5a T6 T7 T8 T9 T10",
    "1c ICMP (RFC 5508)": "I1 I1a I2 I3 I3a I3b I3c I3d I4 I5 I6 I7 I8 I9 I10 I11",
    "1d RFC 7857, RFC 6888": "R1 R2 R3 R3a R4 R5 R6 R7 R8 R9 C1 C2 C3 C4 C5",
    "1e packet mechanics": "P1 P2 P3 P4 P5 P6 P7 P8 P9 P10 P11 P12 P13",
    "1f fragments": "F1 F2 F3 F4 F5 F6 F7 F8",
    "1g port forward, NAT-PMP, PCP": "M1 M2 M3 M4 M5 M6 M7 M8 M9 M10 M11 M12 M13 M14 M15 M16",
    "2 ARP": " ".join(f"A{n}" for n in range(1, 31)),
    "3 router and ICMP": " ".join(f"G{n}" for n in range(1, 34)),
    "4 WireGuard": " ".join(f"W{n}" for n in range(1, 31)),
    "5 DHCP, PMTUD, DNS": " ".join([*(f"D{n}" for n in range(1, 11)), *(f"Q{n}" for n in range(1, 7))])
    + " "
    + " ".join(f"N{n}" for n in range(1, 11)),
}
KNOWN = [row for rows in ROWS.values() for row in rows.split()]
_BY_LOWER = {row.lower(): row for row in KNOWN}
_IN_DOCSTRING = re.compile(r"^((?:[A-Z]\d+[a-d]?)(?:(?:,\s*|\s+and\s+)[A-Z]\d+[a-d]?)*)\s*[:(]")


def rows_of(name: str, docstring: str | None) -> set[str]:
    """The rows that a test shows."""
    found = {_BY_LOWER[word] for word in re.split(r"[_\[]", name) if word in _BY_LOWER}
    match = _IN_DOCSTRING.match((docstring or "").strip())
    if match:
        found |= {row for row in re.findall(r"[A-Z]\d+[a-d]?", match[1]) if row in KNOWN}
    return found


class Collector:
    """A pytest plugin that writes down which rows each test shows and how it went."""

    def __init__(self) -> None:
        self.rows: dict[str, set[str]] = {}
        self.failed: set[str] = set()
        self.passed: set[str] = set()

    def pytest_collection_modifyitems(self, items: list[object]) -> None:
        """Read the rows off every test and leave out those that show none."""
        kept = []
        for item in items:
            function = getattr(item, "function", None)
            rows = rows_of(item.name, getattr(function, "__doc__", None))  # type: ignore[attr-defined] # pytest.Item
            if rows:
                self.rows[item.nodeid] = rows  # type: ignore[attr-defined] # pytest.Item
                kept.append(item)
        items[:] = kept

    def pytest_runtest_logreport(self, report: object) -> None:
        """Remember each outcome."""
        if report.failed:  # type: ignore[attr-defined] # pytest.TestReport
            self.failed.add(report.nodeid)  # type: ignore[attr-defined] # pytest.TestReport
        elif report.when == "call" and report.passed:  # type: ignore[attr-defined] # pytest.TestReport
            self.passed.add(report.nodeid)  # type: ignore[attr-defined] # pytest.TestReport


def table(collector: Collector) -> list[dict[str, str | None]]:
    """One entry a row: section, id, state, and the first test that shows it (with how many more)."""
    tests: dict[str, list[str]] = defaultdict(list)
    for test, rows in collector.rows.items():
        for row in rows:
            tests[row].append(test)
    found: list[dict[str, str | None]] = []
    for section, rows_text in ROWS.items():
        for row in rows_text.split():
            mine = tests.get(row, [])
            if any(test in collector.failed for test in mine):
                state = "failing"
            elif any(test in collector.passed for test in mine):
                state = "held"
            else:
                state = "not yet"
            names = sorted({test.partition("[")[0] for test in mine})
            shown = names[0] + (f" (+{len(names) - 1})" if len(names) > 1 else "") if names else None
            found.append({"section": section, "id": row, "state": state, "test": shown})
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests that carry a row and print the table."""
    import pytest  # noqa: PLC0415 - a development dependency, wanted by this command alone

    parser = argparse.ArgumentParser(prog="bench.conformance", description="state of every row of the checklist")
    parser.add_argument("-j", "--json", action="store_true")
    options = parser.parse_args(arguments)
    print("running every test that carries a row, about a minute ...", file=sys.stderr, flush=True)
    collector = Collector()
    root = Path(__file__).resolve().parent.parent
    ended = pytest.main(
        ["-q", "--no-header", "--no-summary", "-p", "no:terminalreporter", str(root / "tests")], [collector]
    )
    rows = table(collector)
    if options.json:
        print(json.dumps({"version": 1, "rows": rows}, indent=1))
    else:
        section = None
        for row in rows:
            if row["section"] != section:
                section = row["section"]
                print(f"\n{section}")
            print(f"  {row['id']:<5} {row['state']:<8} {row['test'] or ''}")
        states = [row["state"] for row in rows]
        print("\n" + ", ".join(f"{states.count(state)} {state}" for state in ("held", "failing", "not yet")))
    if ended not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        print(f"pytest could not run the tests (exit code {int(ended)}); `make test` says why", file=sys.stderr)
        return 1
    return 1 if any(row["state"] == "failing" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
