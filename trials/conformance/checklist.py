"""The rows of the checklist: section, level, on which egresses a row has to be shown, what it waits for.

What a row demands is said in the checklist and in the tests that carry its name. Levels: M must, S should, Y may, D our
own decision; "M/S" where one row holds demands of both kinds.
"""

from __future__ import annotations

from dataclasses import dataclass

BOTH = frozenset("OV")
"""The egresses: O is tap1 (or tun1), V the inside of the tunnel."""

_SECTIONS = {
    "1a UDP (RFC 4787)": "U1:M U2:S U3:M U3a:S U3b:D U4:S U5:M/S U5a:Y U6:M U6a:Y U7:M U8:S U9:M U9a:M U10:S U11:M "
    "U12:M U12a:S U12b:S U13:M U13a:M/S U14:M",
    "1b TCP (RFC 5382)": "T1:M T2:M T2a:M T3:S T4:M/S T5:M T5a:Y T6:S T7:M T8:M T9:S T10:M",
    "1c ICMP (RFC 5508)": "I1:M I1a:S I2:M I3:S I3a:S I3b:M I3c:S I3d:M I4:S/M I5:S/M I6:M I7:M I8:S I9:Y I10:M/Y/S "
    "I11:Y",
    "1d RFC 7857, RFC 6888": "R1:S R2:S/Y R3:M/S R3a:S R4:S R5:S R6:S R7:S R8:S R9:Y C1:M C2:M C3:S C4:M C5:S",
    "1e packet mechanics": "P1:M P2:M P3:M P4:M P5:M P6:M P7:M P8:D P9:D P10:D P11:D P12:D P13:S",
    "1f fragments": "F1:M F2:M F3:S F4:M F5:M F6:M F7:M F8:S",
    "1g port forward, NAT-PMP, PCP": "M1:D M2:D M3:M M4:M M5:M M6:M M7:M M8:M M9:S M10:M M11:M M12:M M13:M/S M14:M "
    "M15:M M16:S",
    "2 ARP": "A1:M A2:M A3:M A4:M A5:M A6:D A7:M A8:M A9:M A10:D A11:D A12:M A13:S A14:S A15:M A16:M A17:Y A18:D A19:M "
    "A20:S A21:M A22:D A23:M A24:D A25:D A26:D A27:D A28:D A29:Y A30:M",
    "3 router and ICMP": "G1:M G2:S/M G3:M G4:M G5:M G6:S G7:M G8:M G9:S G10:S G11:S G12:M G13:S G14:M G15:M/D G16:M "
    "G17:M G18:M G19:D G20:Y G21:S G22:M G23:M/S G24:M G25:S G26:M G27:M G28:M G29:D G30:S G31:M G32:M G33:D",
    "4 WireGuard": "W1:M W2:M W3:M W4:M W5:M/S W6:S W7:M W8:M W9:M W10:M W11:M W12:M W13:S W14:M W15:M W16:M W17:M "
    "W18:M W19:M W20:M W21:M W22:M W23:M W24:M W25:M W26:M W27:M W28:S W29:S W30:M",
    "5 DHCP, PMTUD, DNS": "D1:M D2:M D3:S D4:M D5:M D6:M D7:S/M D8:M D9:D D10:S Q1:M Q2:M Q3:D Q4:D Q5:M Q6:S N1:D "
    "N2:D N3:D N4:D N5:M N6:M/S N7:D N8:M N9:D N10:S",
}

_WHOLE_SECTIONS_WITHOUT = {
    "2 ARP": "the taps alone have a link layer",
    "4 WireGuard": "this is the tunnel itself",
}

WITHOUT_EGRESS: dict[str, str] = {
    "P2": "arithmetic on sixteen bits: the addresses and ports are drawn at random, no port of ours is part of it",
    "G7": "what our errors look like, which are built in one place for all ports",
    "G13": "only the LAN and the host are answered so, at tap0's address",
    "G15": "in by tap0 and out by tap0",
    "G18": "asked from the LAN and from the host",
    "G23": "raw IP inside the tunnel has no link-layer address",
    "Q3": "the path outside of the tunnel",
    "Q5": "what is known of the path outside of the tunnel",
}
"""Rows of the NAT and the router that need no second egress, each with its reason."""

_COMES_WITH = {
    "DHCP on tap1": ["U7", *(f"D{n}" for n in range(1, 11))],
    "port control (NAT-PMP, PCP)": [f"M{n}" for n in range(3, 17)],
    "a DNS companion": [f"N{n}" for n in range(1, 11)],
}


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
    waiting = {row: feature for feature, rows in _COMES_WITH.items() for row in rows}
    found: dict[str, Row] = {}
    for section, text in _SECTIONS.items():
        for word in text.split():
            name, _, level = word.partition(":")
            assert name not in found, name
            feature = waiting.pop(name, None)
            reason = None if feature else WITHOUT_EGRESS.get(name, _WHOLE_SECTIONS_WITHOUT.get(section))
            egresses = frozenset() if reason or feature else BOTH
            found[name] = Row(name, section, level, egresses, reason, feature)
    assert not waiting
    assert set(found) >= set(WITHOUT_EGRESS)
    return found


ROWS: dict[str, Row] = _rows()
