"""docs/conformance.md is what the code says: the rows that are owed, and the known deviations from the kernel's NAT."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.agree.deviations import DEVIATIONS
from trials.conformance.checklist import ROWS, WITHOUT_EGRESS, Row

PAGE = Path(__file__).parents[3] / "docs" / "conformance.md"
LEVELS = {"M": "must", "S": "should", "D": "decided", "Y": "may"}
HEAD = """# Conformance

<!-- written by `pytest tests/trials/conformance/test_conformance_page.py --update-goldens`; read the difference -->

The gateway is held to a checklist drawn from RFCs 768, 791, 792, 826, 1122, 1191, 1624, 1812, 4787, 4884, 5227, 5382,
5508, 6040, 6864, 6888, 7857 and WireGuard's protocol. `make conformance` runs the tests that carry a row's name, prints
for each row its state, on which egresses it was shown, and the test, and fails where one is failing or was shown on one
egress only. The gateway as it stands owes these rows:
"""
AGREE = """
## Beside the kernel's NAT

`tests/agree` sends the same frames through nftables' masquerade in a network namespace and through ours, and compares
what comes out byte by byte, both ways, with tap1 and with the tunnel as the way out: whole connections, queries,
fragments in every order, ICMP errors with their quotes, path MTU, MSS, malformed headers, martians, random
conversations, and captured packets where there are any. Not compared: timers, rate limits (G11), names drawn on a
collision (R7), and the IP identification of a router's own messages (G31). Everything else differs only here, and a
test fails when one of these no longer does:

| row | Linux | here |
|---|---|---|
"""


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def sums(name: str, rows: list[Row]) -> list[str]:
    """A line of counts by level."""
    found = Counter(row.strictest for row in rows)
    return [name, *(str(found[level]) for level in LEVELS), str(len(rows))]


def page() -> str:
    """The whole page."""
    owed = [row for row in ROWS.values() if row.comes_with is None]
    sections = dict.fromkeys(row.section for row in owed)
    lines = [sums(section, [row for row in owed if row.section == section]) for section in sections]
    text = HEAD + "\n" + table(["section", *LEVELS.values(), "all"], [*lines, sums("all", owed)])
    both = sum(bool(row.egresses) for row in owed)
    text += f"\n{both} of them have to be shown on both egresses, tap1 and the tunnel. ARP needs none, the taps alone "
    text += "have a\nlink layer; and WireGuard is the tunnel itself. Nor do these:\n\n"
    text += table(["row", "why"], [[row, reason] for row, reason in WITHOUT_EGRESS.items()])
    text += "\nThe other rows wait for features:\n\n"
    features = dict.fromkeys(row.comes_with for row in ROWS.values() if row.comes_with)
    waiting = {name: [row.id for row in ROWS.values() if row.comes_with == name] for name in features}
    text += table(["feature", "rows"], [[str(name), ", ".join(rows)] for name, rows in waiting.items()])
    return text + AGREE + "".join(f"| {d.row} | {d.name} | {d.reason} |\n" for d in DEVIATIONS)


def test_the_page_is_what_the_code_says(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-goldens"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page()
