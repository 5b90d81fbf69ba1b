"""The highest rate that passes with little loss, found in few short steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

MOST_LOSS = 0.01
_CLOSE = 1.04
_SHARE = 0.97
"""A sender that reaches less than this share of what was asked is the bound itself."""


class Trial(NamedTuple):
    """One step: packets a second that left the sender and that arrived."""

    sent: float
    received: float

    @property
    def loss(self) -> float:
        """The share that was lost, 0 to 1."""
        return max(1 - self.received / self.sent, 0.0) if self.sent else 1.0


class HighestRate(NamedTuple):
    """The best step that lost less than `MOST_LOSS`; None where every one lost more. `is_sender_bound`: the sender
    cannot do more, so the gateway perhaps can."""

    best: Trial | None
    is_sender_bound: bool
    trials: int


def highest_rate(step: Callable[[float], Trial], most_steps: int = 10) -> HighestRate:
    """Search with `step`, which tries a rate in packets a second (0: as fast as the sender goes).

    First at full speed; then between what passed and what did not, by their geometric mean, because a gateway that is
    overrun may deliver far less than it can. One hiccup of the machine loses more than the limit within a short step:
    a rate is given up when it failed twice, but for losses beyond doubt.
    """
    trial = step(0)
    trials = 1
    if trial.loss < MOST_LOSS:
        return HighestRate(trial, True, trials)
    best: Trial | None = None
    high, rate, is_second_try = trial.sent, max(trial.received, trial.sent / 64), False
    while trials < most_steps:
        trial = step(rate)
        trials += 1
        if trial.loss < MOST_LOSS:
            if best is None or trial.sent > best.sent:
                best = trial
            if trial.sent < rate * _SHARE:
                return HighestRate(best, True, trials)
            is_second_try = False
        elif trial.loss < 5 * MOST_LOSS and not is_second_try:
            is_second_try = True
            continue
        else:
            high, is_second_try = min(high, rate), False
        if best is None:
            rate = min(rate * 0.75, max(trial.received, rate / 8))
        elif high / best.sent < _CLOSE:
            break
        else:
            rate = (best.sent * high) ** 0.5
    return HighestRate(best, False, trials)
