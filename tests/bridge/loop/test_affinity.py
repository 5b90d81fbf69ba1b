"""The loop's thread on one CPU: it stays while it is served there, moves while it waits, roams where that helps not."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from bridge.loop.affinity import LOOK_S, ROAMING_S, Affinity, first_choice, roam, waited_ns
from bridge.loop.loop import Timer
from wire.units import SECOND_NS, seconds_ns

ALL = frozenset({0, 1, 2})


@dataclass
class World:
    """A clock, the timers that were asked for, and a thread that waits for a CPU as long as it is told to."""

    now: int = 0
    waited: int = 0
    held: list[frozenset[int]] = field(default_factory=list)
    due: list[Timer] = field(default_factory=list)
    moves: bool = True

    def clock(self) -> int:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        self.due.append(Timer(self.now + seconds_ns(seconds), callback))
        return self.due[-1]

    def second(self, waiting_s: float = 0.0, *, seconds: float = LOOK_S) -> None:
        [timer], self.due = self.due, []
        self.now += seconds_ns(seconds)
        self.waited += seconds_ns(waiting_s)
        assert timer.due_ns == self.now
        assert timer.callback is not None
        timer.callback()


@pytest.fixture
def world() -> World:
    return World()


def held(world: World, cpu: int = 1, allowed: frozenset[int] = ALL) -> None:
    chance = lambda: 0.0 if world.moves else 0.9  # noqa: E731 - one line says it
    Affinity(world, cpu, allowed, lambda: world.waited, world.held.append, chance).hold()


def test_it_stays_where_it_is_while_it_seldom_waits(world: World) -> None:
    held(world)
    for _ in range(100):
        world.second(0.1)
    assert world.held == [{1}]


def test_it_moves_where_it_waits_much_and_roams_where_all_are_busy_and_comes_back(world: World) -> None:
    held(world)
    for _ in ALL:
        world.second(0.5)
    assert world.held == [{1}, {0}, {2}, ALL]
    world.second(seconds=ROAMING_S)
    assert world.held[4:] == [{1}]


def test_a_quiet_second_forgets_the_cpus_that_were_tried(world: World) -> None:
    held(world)
    world.second(0.5)
    world.second()
    world.second(0.5)
    assert world.held == [{1}, {0}, {1}]


def test_of_two_that_wait_for_each_other_one_may_stay(world: World) -> None:
    held(world)
    world.moves = False
    world.second(0.5)
    assert world.held == [{1}]


def test_on_one_cpu_nothing_is_done(world: World) -> None:
    held(world, 0, frozenset({0}))
    assert world.held == []
    assert world.due == []


def test_the_kernel_says_how_long_a_thread_waited() -> None:
    assert 0 <= waited_ns() < 10**9 * SECOND_NS


def test_a_gateway_and_an_exit_node_on_one_machine_do_not_meet() -> None:
    cpus = os.sched_getaffinity(0)
    assert {first_choice(has_lan=True), first_choice(has_lan=False)} == {min(cpus), max(cpus)}


def test_who_roams_has_every_cpu_again() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        roam()
        assert os.sched_getaffinity(0) == before
    finally:
        os.sched_setaffinity(0, before)
