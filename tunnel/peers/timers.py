"""The timers of one peer: each is a time in ns, or `OFF` (`tunnel.constants`). `tunnel.peers.peer` sets and fires
them."""

from __future__ import annotations

from tunnel.constants import OFF


class Timers:
    """The deadlines of one peer.

    `retransmit`: the initiation is repeated, or the series is given up. `keepalive`: data came and nothing was sent
    since. `unanswered`: data was sent and nothing came since. `persistent`: the operator's keepalive is due. `erase`:
    the keys are overwritten. `announce`: our prefixes are told again. `withdraw`: the peer's prefixes are forgotten,
    because the peer did not tell them again. `path`: `tunnel.pathmtu` has something to do.
    """

    __slots__ = ("announce", "erase", "keepalive", "path", "persistent", "retransmit", "unanswered", "withdraw")

    def __init__(self) -> None:
        self.stop()

    def stop(self) -> None:
        """Switch all of them off."""
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
