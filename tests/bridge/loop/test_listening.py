"""Connections are let in: so many in a turn, and none while descriptors have run out."""

from __future__ import annotations

import logging
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bridge.loop.listening import MOST_IN_A_TURN, PAUSE_S, Listener
from bridge.loop.loop import Loop
from tests.bridge.loop.test_loop import Cable, Clock
from wire.units import SECOND_NS


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Nothing more can be opened."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.dup(0)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Door:
    """A listener with its loop; `crowd` are those who knock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.loop = Loop(Cable(), clock=self.clock)
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.socket.setblocking(False)
        self.inside: list[socket.socket] = []
        self.crowd: list[socket.socket] = []
        self.listener = Listener(self.loop, self.socket, "the door", self.inside.append)

    def knock(self, count: int) -> None:
        self.crowd += [socket.create_connection(self.socket.getsockname()) for _ in range(count)]

    def close(self) -> None:
        self.listener.close()
        self.loop.close()
        for one in (*self.inside, *self.crowd):
            one.close()


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


def test_so_many_are_let_in_by_one_turn_of_the_loop(door: Door) -> None:
    door.knock(MOST_IN_A_TURN + 3)
    door.loop.turn(0)
    assert len(door.inside) == MOST_IN_A_TURN
    door.loop.turn(0)
    assert len(door.inside) == MOST_IN_A_TURN + 3
    assert not any(one.getblocking() for one in door.inside)


def test_a_loop_does_not_spin_while_descriptors_have_run_out(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """Waiting clients are let in later; one line of the log a minute."""
    door.knock(3)
    tried = []
    with no_descriptors(), caplog.at_level(logging.WARNING):
        for _ in range(100):
            door.loop.turn(0)
            tried.append(door.listener.tries)
            door.clock.now += round(0.1 * PAUSE_S * SECOND_NS)
    assert door.inside == []
    assert 1 <= tried[-1] <= 11
    assert len(caplog.records) == 1
    assert "the door cannot accept for a while" in caplog.text
    door.clock.now += round(PAUSE_S * SECOND_NS)
    for _ in range(3):
        door.loop.turn(0)
    assert len(door.inside) == 3


def test_a_listener_may_be_closed_while_it_looks_away() -> None:
    door = Door()
    door.knock(1)
    with no_descriptors():
        door.loop.turn(0)
    door.close()
