"""The log of our own bugs: a frame on which the gateway's code fails never ends the loop, and never floods the log."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable

from wire.units import SECOND_NS

log = logging.getLogger(__name__)

BUG_INTERVAL_NS = 60 * SECOND_NS
"""A place in our code that fails is logged at most this often."""
_SHOWN_FRAME_BYTES = 256


class BugLog:
    """Counts failures by the place that raised, and logs each place at most once in `BUG_INTERVAL_NS`."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._places: dict[tuple[str, int], tuple[int, int]] = {}
        """By file and line: when it was logged last, and the failures since."""

    def add(self, error: Exception, occasion: str, frame: bytes) -> None:
        """Log an exception with all that is needed to repeat it. `occasion` completes "a bug in the gateway ..."."""
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = (last.filename, last.lineno or 0)
        now = self._clock()
        logged_ns, unlogged = self._places.get(place, (now - BUG_INTERVAL_NS, 0))
        if now - logged_ns < BUG_INTERVAL_NS:
            self._places[place] = (logged_ns, unlogged + 1)
            return
        self._places[place] = (now, 0)
        log.error(
            "a bug in the gateway %s (%d more since the last time); the frame: %s%s",
            occasion,
            unlogged,
            frame[:_SHOWN_FRAME_BYTES].hex() or "none",
            f"... ({len(frame)} bytes)" if len(frame) > _SHOWN_FRAME_BYTES else "",
            exc_info=error,
        )
