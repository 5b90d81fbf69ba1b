"""The replay window of one session, after RFC 6479: a ring of 8,192 slots that reaches back 8,128 counters.

`may_be_new` costs nothing and changes nothing: it goes before authentication. `accept` moves the window and goes after.
The ring holds a byte a slot: in order, which is nearly always, a packet sets one and clears none.
"""

from __future__ import annotations

from typing import Final

SLOTS: Final = 8192
REACH: Final = 8128
REJECT_AFTER_MESSAGES: Final = (1 << 64) - (1 << 13) - 1

_MASK = SLOTS - 1


class ReplayWindow:
    """Which counters have been seen."""

    __slots__ = ("_greatest", "_seen")

    def __init__(self) -> None:
        self._greatest = 0
        self._seen = bytearray(SLOTS)

    def may_be_new(self, counter: int) -> bool:
        """False for a counter that was seen, is too old, or is beyond the last that a key may carry."""
        if counter > self._greatest:
            return counter < REJECT_AFTER_MESSAGES
        return self._greatest - counter <= REACH and not self._seen[counter & _MASK]

    def accept(self, counter: int) -> bool:
        """Take in the counter of an authenticated packet; False where it must be dropped after all."""
        ahead = counter - self._greatest
        if ahead > 0:
            if counter >= REJECT_AFTER_MESSAGES:
                return False
            if ahead > 1:
                self._clear(ahead)
            self._greatest = counter
        elif ahead < -REACH or self._seen[counter & _MASK]:
            return False
        self._seen[counter & _MASK] = 1
        return True

    def _clear(self, ahead: int) -> None:
        """Empty the slots of the counters that were jumped over."""
        if ahead >= SLOTS:
            self._seen[:] = bytes(SLOTS)
            return
        start = (self._greatest + 1) & _MASK
        end = start + ahead - 1
        self._seen[start : min(end, SLOTS)] = bytes(min(end, SLOTS) - start)
        if end > SLOTS:
            self._seen[: end - SLOTS] = bytes(end - SLOTS)
