"""The deadlines of one peer, each a time in ns or `OFF`, and the intervals between them."""

from __future__ import annotations

from typing import Final

from tunnel.session import REJECT_AFTER_NS
from wire.units import SECOND_NS

OFF: Final = 1 << 63
REKEY_TIMEOUT_NS: Final = 5 * SECOND_NS
JITTER_NS: Final = SECOND_NS // 3
KEEPALIVE_NS: Final = 10 * SECOND_NS
UNANSWERED_NS: Final = KEEPALIVE_NS + REKEY_TIMEOUT_NS
# An initiator that still hears the peer at this age asks for new keys before the old ones are refused.
LAST_MINUTE_NS: Final = REJECT_AFTER_NS - KEEPALIVE_NS - REKEY_TIMEOUT_NS
ERASE_NS: Final = 3 * REJECT_AFTER_NS
# 90 s at one every 5 s, the first beside them, and the one that finds the 90 s over.
ATTEMPTS: Final = 20
# After so many the peer may be elsewhere: 20 s, and again every 20 s.
ATTEMPTS_IN_VAIN: Final = 4
INITIATION_PAUSE_NS: Final = SECOND_NS // 50


class Timers:
    """When what is due.

    `retransmit`: the initiation goes out again, or the series is given up. `keepalive`: data came and nothing went
    out. `unanswered`: data went out and nothing came. `persistent`: the operator's keepalive. `erase`: the keys.
    `announce`: our prefixes are told again. `withdraw`: those of the peer were not told again. `path`:
    `tunnel.pathmtu` has something to do.
    """

    __slots__ = ("announce", "erase", "keepalive", "path", "persistent", "retransmit", "unanswered", "withdraw")

    def __init__(self) -> None:
        self.retransmit = OFF
        self.keepalive = OFF
        self.unanswered = OFF
        self.persistent = OFF
        self.erase = OFF
        self.announce = OFF
        self.withdraw = OFF
        self.path = OFF

    def earliest(self) -> int:
        """The next deadline, or `OFF`."""
        return min(
            self.retransmit,
            self.keepalive,
            self.unanswered,
            self.persistent,
            self.erase,
            self.announce,
            self.withdraw,
            self.path,
        )
