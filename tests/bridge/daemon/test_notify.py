"""sd_notify(3): what the manager asks of its watchdog, and that only a gateway that turns answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.daemon.notify import Watchdog, watchdog_s
from bridge.loop.loop import Loop
from tests.bridge.loop.test_loop import Cable, Clock
from wire.units import SECOND_NS


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_manager_says_whether_and_how_often(environment: dict[str, str], seconds: float | None) -> None:
    assert watchdog_s(environment, pid=7) == seconds


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield manager


def told(manager: socket.socket) -> int:
    """How often it was fed since the last time."""
    count = 0
    while True:
        try:
            count += manager.recv(64) == b"WATCHDOG=1"
        except BlockingIOError:
            return count


def test_it_is_fed_three_times_in_its_time_by_a_loop_that_turns(manager: socket.socket) -> None:
    clock = Clock()
    loop = Loop(Cable(), clock=clock)
    Watchdog(loop, 30.0)
    assert told(manager) == 1
    for _ in range(6):
        clock.now += 10 * SECOND_NS
        loop.turn(0)
    assert told(manager) == 6
    clock.now += 60 * SECOND_NS
    assert told(manager) == 0, "a loop that does not turn is silent"
    loop.close()


def test_a_thread_that_does_not_come_back_silences_it(manager: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    clock, stuck = Clock(), [""]
    loop = Loop(Cable(), clock=clock)
    Watchdog(loop, 30.0, lambda _within_s: stuck[0])
    told(manager)
    stuck[0] = "ports 1"
    clock.now += 10 * SECOND_NS
    loop.turn(0)
    assert told(manager) == 0
    assert "ports 1 has not come back" in caplog.text
    loop.close()
