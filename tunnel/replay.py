"""The replay window of one session, after RFC 6479: a ring of 8,192 slots that reaches back 8,128 counters.

`may_be_new` costs nothing and changes nothing: it goes before authentication. `accept` moves the window and goes after.
The ring holds a byte a slot: in order, which is nearly always, a packet sets one and clears none.

It lies in memory that compiled code may use as well (`tunnel.session`): there is one window, whichever code opens a
packet.
"""

from __future__ import annotations

from typing import Final

from tunnel.constants import REJECT_AFTER_MESSAGES

SLOTS: Final = 8192
REACH: Final = 8128

_MASK = SLOTS - 1


class ReplayWindow:
    """Which counters have been seen. `greatest`: one 64-bit word; `seen`: SLOTS bytes, all zero at first."""

    __slots__ = ("_greatest", "_seen")

    def __init__(self, greatest: memoryview | None = None, seen: memoryview | None = None) -> None:
        self._greatest = memoryview(bytearray(8)).cast("Q") if greatest is None else greatest
        self._seen = memoryview(bytearray(SLOTS)) if seen is None else seen

    def may_be_new(self, counter: int) -> bool:
        """False for a counter that was seen, is too old, or is beyond the last that a key may carry."""
        greatest: int = self._greatest[0]
        if counter > greatest:
            return counter < REJECT_AFTER_MESSAGES
        return greatest - counter <= REACH and not self._seen[counter & _MASK]

    def accept(self, counter: int) -> bool:
        """Take in the counter of an authenticated packet; False where it must be dropped after all."""
        ahead: int = counter - self._greatest[0]
        if ahead > 0:
            if counter >= REJECT_AFTER_MESSAGES:
                return False
            if ahead > 1:
                self._clear(ahead)
            self._greatest[0] = counter
        elif ahead < -REACH or self._seen[counter & _MASK]:
            return False
        self._seen[counter & _MASK] = 1
        return True

    def _clear(self, ahead: int) -> None:
        """Empty the slots of the counters that were jumped over."""
        if ahead >= SLOTS:
            self._seen[:] = bytes(SLOTS)
            return
        start = (self._greatest[0] + 1) & _MASK
        end = start + ahead - 1
        self._seen[start : min(end, SLOTS)] = bytes(min(end, SLOTS) - start)
        if end > SLOTS:
            self._seen[: end - SLOTS] = bytes(end - SLOTS)

    def state(self) -> tuple[int, bytes]:
        """The greatest counter and the ring, for tests."""
        return self._greatest[0], bytes(self._seen)
