"""The rows of the checklist: section, level, the egresses on which a row has to be shown, the feature it waits for.

`docs/checklist.md` holds the rows with their demands in words, one line a row, and is read here. Levels: M must, S
should, Y may, D our own decision; "M/S" where one row holds demands of both kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "checklist.md"
BOTH = frozenset("OV")
"""The egresses: O is tap1 (or tun1), V the inside of the tunnel."""

_WHOLE_SECTIONS_WITHOUT = {
    "2 ARP": "the taps alone have a link layer",
    "4 WireGuard": "this is the tunnel itself",
}

WITHOUT_EGRESS: dict[str, str] = {
    "P2": "arithmetic on sixteen bits: the addresses and ports are drawn at random, no port of ours is part of it",
    "G7": "the form of our errors, which are built in one place for all ports",
    "G13": "only the LAN and the host are answered so, at tap0's address",
    "G15": "in by tap0 and out by tap0",
    "G18": "asked from the LAN and from the host",
    "G23": "raw IP inside the tunnel has no link-layer address",
    "Q3": "the path outside of the tunnel",
    "Q5": "our knowledge of the path outside of the tunnel",
    "G34": "the kernel's routes to the tunnel's other end",
    "G35": "filters of the machine in front of the taps",
    "U7": "tap1 alone leases its address",
    **{f"D{number}": "tap1 alone leases its address" for number in range(1, 19)},
}
"""Rows of the NAT and the router that need no second egress, each with its reason."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `levels`: its letters, the strictest first. `egresses`: where it has to be shown. `why_not_both`: the
    reason where that is not on both. `comes_with`: the feature that it waits for."""

    id: str
    section: str
    level: str
    egresses: frozenset[str]
    why_not_both: str | None
    comes_with: str | None

    @property
    def strictest(self) -> str:
        """The level to count it under: M before S before D before Y."""
        return min(self.level.split("/"), key="MSDY".index)


def _rows() -> dict[str, Row]:
    """The page's rows in its order. `AssertionError` for a line that is no row, or a row that stands there twice."""
    found: dict[str, Row] = {}
    section = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith("| row "):
            name, level, _, *features = (cell.strip() for cell in line.strip("|").split("|"))
            assert name not in found, line
            assert set(level) <= set("MSDY/"), line
            feature = next(filter(None, features), None)
            reason = None if feature else WITHOUT_EGRESS.get(name, _WHOLE_SECTIONS_WITHOUT.get(section))
            egresses = frozenset() if reason or feature else BOTH
            found[name] = Row(name, section, level, egresses, reason, feature)
    assert set(found) >= set(WITHOUT_EGRESS)
    return found


ROWS: dict[str, Row] = _rows()
