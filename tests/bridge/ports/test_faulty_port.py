"""A bad cable: each fault alone, both directions, the same seed the same faults."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.ports.faulty import CableFaults, FaultyPort
from bridge.ports.memory import MemoryPort


@pytest.fixture
def cable() -> Iterator[MemoryPort]:
    port = MemoryPort("tap0", "tap")
    yield port
    port.close()


FRAMES = [bytes([number]) * 20 for number in range(8)]


def through(cable: MemoryPort, faults: CableFaults, seed: int = 0) -> list[bytes]:
    """The frames as they are read, one burst."""
    port = FaultyPort(cable, faults, random.Random(seed))
    cable.deliver(*FRAMES)
    return [frame for frame, _ in port.read_burst(len(FRAMES))]


def test_a_good_cable_changes_nothing(cable: MemoryPort) -> None:
    assert through(cable, CableFaults()) == FRAMES


def test_certain_loss_lets_nothing_through(cable: MemoryPort) -> None:
    assert through(cable, CableFaults(loss=1.0)) == []


def test_certain_duplication_doubles_every_frame(cable: MemoryPort) -> None:
    assert through(cable, CableFaults(duplicate=1.0)) == [frame for frame in FRAMES for _ in range(2)]


def test_certain_reordering_swaps_neighbours(cable: MemoryPort) -> None:
    assert through(cable, CableFaults(reorder=1.0)) == [FRAMES[number ^ 1] for number in range(len(FRAMES))]


def test_certain_damage_flips_one_bit_of_every_frame(cable: MemoryPort) -> None:
    for before, after in zip(FRAMES, through(cable, CableFaults(corrupt=1.0)), strict=True):
        changed = int.from_bytes(before, "big") ^ int.from_bytes(after, "big")
        assert changed.bit_count() == 1


def test_writing_suffers_as_reading_does(cable: MemoryPort) -> None:
    port = FaultyPort(cable, CableFaults(reorder=1.0), random.Random(0))
    for frame in FRAMES:
        assert port.write(frame, None) is None
    assert [frame for frame, _ in cable.sent] == [FRAMES[number ^ 1] for number in range(len(FRAMES))]


@given(seed=st.integers(0, 1 << 32), rates=st.tuples(*[st.floats(0, 1)] * 4))
def test_the_same_seed_gives_the_same_faults(seed: int, rates: tuple[float, float, float, float]) -> None:
    outcomes = []
    for _ in range(2):
        port = MemoryPort("tap0", "tap")
        outcomes.append(through(port, CableFaults(*rates), seed))
        port.close()
    assert outcomes[0] == outcomes[1]
