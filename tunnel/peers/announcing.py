"""Announced prefixes between us and one peer: our list goes out and is repeated, the peer's list comes in.

The messages are returned, and `tunnel.peers.peer` seals them. The lists and their rules are in `tunnel.announce`; the
tunnel decides for all peers together who owns which prefix (`Common.is_unjudged`).
"""

from __future__ import annotations

from tunnel.announce import RENEW_NS, Hearing, Telling
from tunnel.common import Common
from tunnel.constants import OFF
from tunnel.control import ControlMessage
from tunnel.peers.timers import Timers
from tunnel.session import Session
from wire.drop import Drop


class Announcing:
    """`telling`: our list and the peer's verdicts; `hearing`: the peer's list and our verdicts. `timers`: the peer's;
    `announce` and `withdraw` are set here."""

    __slots__ = ("_common", "_timers", "hearing", "telling")

    def __init__(self, common: Common, timers: Timers) -> None:
        self._common = common
        self._timers = timers
        self.hearing = Hearing()
        self.telling = Telling(common.offer)

    # Our list

    def session_ready(self, now: int) -> ControlMessage | None:
        """The list, for a new session; None where it is empty."""
        self._timers.announce = OFF
        return self._attempt(now) if self.telling.begin() else None

    def offer_changed(self, now: int, *, can_send: bool) -> ControlMessage | None:
        """The list, after the operator changed it; None where the peer need not be told, or cannot be told now."""
        if not self.telling.change(self._common.offer):
            return None
        return self.repeat(now, can_send=can_send)

    def repeat(self, now: int, *, can_send: bool) -> ControlMessage | None:
        """The list again, after the timer `announce`. Without a session to send it under, the next one tells it."""
        self._timers.announce = OFF
        return self._attempt(now) if can_send else None

    def _attempt(self, now: int) -> ControlMessage:
        message = self.telling.message()
        pause = self.telling.pause_ns()
        if pause is not None:
            self._timers.announce = now + pause
        return message

    def answered(self, message: ControlMessage, now: int) -> bool | Drop:
        """The peer answered our list: True where its verdicts are others than before."""
        outcome = self.telling.answered(message, now)
        if not isinstance(outcome, Drop):
            self._timers.announce = OFF
        return outcome

    # The peer's list

    def announced(self, message: ControlMessage, session: Session, now: int) -> ControlMessage | Drop | None:
        """The peer announces. A list that was told before is answered at once; a new one only after the tunnel has
        judged it, and None is returned."""
        outcome = self.hearing.receive(message, session.created_ns, now)
        if isinstance(outcome, Drop):
            return outcome
        self._timers.withdraw = OFF
        if outcome:
            self._common.is_unjudged = True
            return None
        return self.hearing.answer()

    def data_came(self, session: Session, now: int) -> None:
        """The peer uses a session: where it is newer than the list, the list must be told again in `RENEW_NS`."""
        claim = self.hearing.claim
        if claim is not None and session.created_ns > claim.created_ns and self._timers.withdraw == OFF:
            self._timers.withdraw = now + RENEW_NS

    def forget(self) -> None:
        """Forget the peer's list: its keys are gone, or the peer did not tell the list again."""
        self._timers.withdraw = OFF
        if self.hearing.forget():
            self._common.is_unjudged = True
