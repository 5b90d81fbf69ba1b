"""The search for the highest rate, against gateways that are only arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trials.bench.search import MOST_LOSS, Trial, highest_rate

SENDER = 400_000.0


def gateway(capacity: float, overrun: Callable[[float], float]) -> Callable[[float], Trial]:
    """One that passes everything up to `capacity`; beyond it what `overrun` makes of the offer."""

    def step(rate: float) -> Trial:
        sent = min(rate or SENDER, SENDER)
        return Trial(sent, sent if sent <= capacity else overrun(sent))

    return step


@pytest.mark.parametrize("capacity", [3_000, 20_000, 81_000, 199_000, 390_000])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.02], ids=["delivers what it can", "half of it", "hardly anything"])
def test_the_capacity_is_found_however_a_gateway_behaves_when_it_is_overrun(capacity: float, share: float) -> None:
    found = highest_rate(gateway(capacity, lambda _: capacity * share), most_steps=20)
    assert found.best is not None
    assert not found.is_sender_bound
    assert 0.9 * capacity <= found.best.received <= capacity * (1 + 2 * MOST_LOSS)
    assert found.best.loss < MOST_LOSS


def test_ten_steps_come_near_it() -> None:
    for capacity in (20_000.0, 81_000.0, 199_000.0, 390_000.0):
        found = highest_rate(gateway(capacity, lambda _, most=capacity: most))
        assert found.best is not None
        assert found.best.received > 0.85 * capacity
        assert found.trials <= 10


def test_a_gateway_that_keeps_up_with_the_sender_is_said_to_be_bound_by_it() -> None:
    found = highest_rate(gateway(SENDER * 2, lambda sent: sent))
    assert found == (Trial(SENDER, SENDER), True, 1)


def test_one_hiccup_of_the_machine_does_not_lower_the_rate() -> None:
    steady, tried = gateway(100_000, lambda _: 90_000), set()

    def step(rate: float) -> Trial:
        trial = steady(rate)
        if rate and rate not in tried and trial.loss < MOST_LOSS:
            tried.add(rate)
            return Trial(trial.sent, trial.sent * 0.97)
        return trial

    found = highest_rate(step, most_steps=20)
    assert found.best is not None
    assert found.best.received > 90_000


def test_where_nothing_passes_there_is_no_rate() -> None:
    found = highest_rate(lambda rate: Trial(rate or SENDER, 0))
    assert found.best is None
    assert found.trials == 10


def test_a_sender_that_cannot_do_what_is_asked_ends_the_search() -> None:
    """The first step lost something by a hiccup; after it the sender is slower than what it did then."""
    steps = iter([Trial(200_000, 190_000), Trial(150_000, 150_000)])
    found = highest_rate(lambda _: next(steps))
    assert found == (Trial(150_000, 150_000), True, 2)


def test_loss_is_a_share_of_what_was_sent() -> None:
    assert Trial(100, 99).loss == pytest.approx(0.01)
    assert Trial(100, 101).loss == 0
    assert Trial(0, 0).loss == 1
