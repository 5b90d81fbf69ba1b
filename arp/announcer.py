"""The claim to our own address: probes, announcements and defence (RFC 5227).

RFC 5227 2.1 (three probes, 1 to 2 s apart, after up to 1 s): `Announcer.start`, `tick`; 2.1.1 (a conflict while
probing: try again, after ten conflicts once a minute): `conflict`; 2.3 (two announcements, 2 s apart): `tick`; 2.4 (c)
(defend, at most once in ten seconds, and keep the address): `conflict`.

A gateway does not wait for the outcome, because the hosts behind it would have no gateway meanwhile. It uses the
address from the first moment. Probing detects a conflict early; announcing follows once probing has found none.
"""

from __future__ import annotations

import random
from enum import Enum
from typing import Final, NamedTuple

from arp import packet
from wire.units import SECOND_NS

PROBE_WAIT_NS: Final = SECOND_NS
PROBE_NUM: Final = 3
PROBE_MIN_NS: Final = SECOND_NS
PROBE_MAX_NS: Final = 2 * SECOND_NS
ANNOUNCE_WAIT_NS: Final = 2 * SECOND_NS
ANNOUNCE_NUM: Final = 2
ANNOUNCE_INTERVAL_NS: Final = 2 * SECOND_NS
MAX_CONFLICTS: Final = 10
RATE_LIMIT_INTERVAL_NS: Final = 60 * SECOND_NS
DEFEND_INTERVAL_NS: Final = 10 * SECOND_NS


class Phase(Enum):
    """The state of the claim to our address."""

    PROBING = "asking whether the address is free"
    RETREATED = "in conflict: asking again later"
    CLAIMED = "ours: to be announced and defended"


class Conflict(NamedTuple):
    """The reaction to a conflict. `notable`: the operator is told; `frame`: the defence, None where none is due."""

    notable: bool
    frame: bytes | None


class Announcer:
    """The claim of one port. `conflicts`: conflicting packets since the beginning. `phase`: CLAIMED until `start`.

    `now` is in ns and never runs backwards.
    """

    __slots__ = ("_address", "_defended_ns", "_due_ns", "_mac", "_rng", "_sent", "_tries", "conflicts", "phase")

    def __init__(self, address: int, mac: bytes, rng: random.Random) -> None:
        self._address = address
        self._mac = mac
        self._rng = rng
        self._due_ns: int | None = None
        self._sent = 0  # frames of the phase
        self._tries = 0  # attempts to probe that ended in a conflict
        self._defended_ns: int | None = None
        self.conflicts = 0
        self.phase = Phase.CLAIMED

    def start(self, now: int) -> None:
        """Begin to probe; `tick` returns the frames."""
        self._tries = 0
        self._begin(Phase.PROBING, now + self._rng.randrange(PROBE_WAIT_NS + 1))

    def next_deadline(self) -> int | None:
        """The time in ns at which `tick` returns a frame; None for never."""
        return self._due_ns

    def tick(self, now: int) -> bytes | None:
        """The frame that is due, None where none is. The next one is due at least a second after `now`."""
        if self._due_ns is None or now < self._due_ns:
            return None
        if self.phase is Phase.RETREATED:
            self._begin(Phase.PROBING, now)
        self._sent += 1
        if self.phase is Phase.PROBING:
            if self._sent < PROBE_NUM:
                self._due_ns = now + self._rng.randrange(PROBE_MIN_NS, PROBE_MAX_NS + 1)
            else:
                self._begin(Phase.CLAIMED, now + ANNOUNCE_WAIT_NS)
            return packet.probe(self._mac, self._address)
        self._due_ns = now + ANNOUNCE_INTERVAL_NS if self._sent < ANNOUNCE_NUM else None
        return packet.announcement(self._mac, self._address)

    def conflict(self, now: int) -> Conflict:
        """Take note that another host uses our address. While probing: begin again later. Afterwards: defend it, at
        most once in `DEFEND_INTERVAL_NS`."""
        self.conflicts += 1
        if self._is_unclaimed():
            return self._retreat(now)
        if self._defended_ns is not None and now < self._defended_ns + DEFEND_INTERVAL_NS:
            return Conflict(notable=False, frame=None)
        self._defended_ns = now
        return Conflict(notable=True, frame=packet.announcement(self._mac, self._address))

    def rival(self, now: int) -> Conflict:
        """Take note that another host probes for our address: a conflict only while we probe for it ourselves
        (2.1.1)."""
        if not self._is_unclaimed():
            return Conflict(notable=False, frame=None)
        self.conflicts += 1
        return self._retreat(now)

    def _is_unclaimed(self) -> bool:
        """True from the start until the first announcement (probing ends with ANNOUNCE_WAIT)."""
        return self.phase is not Phase.CLAIMED or (self._due_ns is not None and self._sent == 0)

    def _retreat(self, now: int) -> Conflict:
        if self.phase is Phase.RETREATED:
            return Conflict(notable=False, frame=None)  # this attempt has ended already
        self._tries += 1
        pause = RATE_LIMIT_INTERVAL_NS if self._tries >= MAX_CONFLICTS else 0
        self._begin(Phase.RETREATED, now + pause + self._rng.randrange(PROBE_WAIT_NS + 1))
        return Conflict(notable=True, frame=None)

    def _begin(self, phase: Phase, due: int) -> None:
        self.phase = phase
        self._sent = 0
        self._due_ns = due
