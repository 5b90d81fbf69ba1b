"""The replay window: the published cases, and a set as its oracle."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.compiled import compiled
from tunnel.constants import REJECT_AFTER_MESSAGES
from tunnel.replay import REACH, SLOTS, ReplayWindow

LIMIT = REACH + 1


def is_taken(window: ReplayWindow, counter: int) -> bool:
    """Offer a counter; the check before authentication must say what the one after it says."""
    before = window.may_be_new(counter)
    assert window.accept(counter) is before
    return before


def test_w19_single_steps() -> None:
    window = ReplayWindow()
    far = 4 * LIMIT
    for counter, expected in [
        (0, True),
        (1, True),
        (1, False),
        (9, True),
        (8, True),
        (7, True),
        (7, False),
        (LIMIT, True),
        (LIMIT - 1, True),
        (LIMIT - 1, False),
        (LIMIT - 2, True),
        (2, True),
        (2, False),
        (LIMIT + 16, True),
        (3, False),
        (LIMIT + 16, False),
        (far, True),
        (far - (LIMIT - 1), True),
        (10, False),
        (far - LIMIT, False),
        (far - (LIMIT + 1), False),
        (far - (LIMIT - 2), True),
        (far + 1 - LIMIT, False),
        (0, False),
        (REJECT_AFTER_MESSAGES, False),
        (REJECT_AFTER_MESSAGES - 1, True),
        (REJECT_AFTER_MESSAGES, False),
        (REJECT_AFTER_MESSAGES - 1, False),
        (REJECT_AFTER_MESSAGES - 2, True),
        (REJECT_AFTER_MESSAGES + 1, False),
        (REJECT_AFTER_MESSAGES + 2, False),
        (REJECT_AFTER_MESSAGES - 2, False),
        (REJECT_AFTER_MESSAGES - 3, True),
        (0, False),
    ]:
        assert is_taken(window, counter) is expected, counter


@pytest.mark.parametrize(
    ("bulk", "then"),
    [
        (range(1, REACH + 1), [(0, True), (0, False)]),
        (range(2, REACH + 2), [(1, True), (0, False)]),
        (range(REACH + 1, 0, -1), []),
        (range(REACH + 2, 1, -1), [(0, False)]),
        (range(REACH, 0, -1), [(REACH + 1, True), (0, False)]),
        (range(REACH, 0, -1), [(0, True), (REACH + 1, True)]),
    ],
)
def test_w19_bulk(bulk: range, then: list[tuple[int, bool]]) -> None:
    window = ReplayWindow()
    assert all(is_taken(window, counter) for counter in bulk)
    assert [(counter, is_taken(window, counter)) for counter, _ in then] == then


@given(st.integers(0, 1 << 32), st.sampled_from([3, 60, 9000, 40_000]))
def test_w19_agrees_with_a_set(seed: int, spread: int) -> None:
    rng = random.Random(seed)
    window = ReplayWindow()
    seen: set[int] = set()
    greatest = 0
    for _ in range(300):
        counter = max(0, greatest + rng.randint(-spread, spread))
        expected = counter not in seen and greatest - counter <= REACH
        assert is_taken(window, counter) is expected
        if expected:
            seen.add(counter)
            greatest = max(greatest, counter)


@given(
    st.lists(
        st.one_of(
            st.integers(0, 3 * SLOTS),
            st.tuples(st.just("ahead"), st.sampled_from([1, 1, 1, 2, 63, SLOTS - 1, SLOTS, SLOTS + 1, REACH, 1 << 40])),
            st.tuples(st.just("behind"), st.sampled_from([0, 1, REACH - 1, REACH, REACH + 1, SLOTS])),
            st.integers(REJECT_AFTER_MESSAGES - 3, (1 << 64) - 1),
        ),
        max_size=60,
    )
)
def test_the_compiled_window_takes_the_same_counters_and_keeps_the_same_memory(steps: list[object]) -> None:
    accepted = compiled("tunnel.burst", "accepted")
    memory, twin = (memoryview(bytearray(24 + SLOTS)) for _ in range(2))
    window = ReplayWindow(twin[8:16].cast("Q"), twin[24:])
    for step in steps:
        greatest = window.state()[0]
        if isinstance(step, tuple):
            counter = max(greatest + (step[1] if step[0] == "ahead" else -step[1]), 0) % (1 << 64)
        else:
            assert isinstance(step, int)
            counter = step
        before = window.may_be_new(counter)
        assert accepted(memory, counter) == (before, window.accept(counter))
        assert memory == twin
