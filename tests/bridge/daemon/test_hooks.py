"""Hooks: what they know, that they are bounded, and that `down` keeps the rights that `up` had."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.daemon.hooks import LIMIT_S, Hook
from bridge.loop.loop import Loop
from tests.bridge.loop.test_loop import Cable, Clock
from wire.units import SECOND_NS

DEADLINE_S = 10.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> Iterator[Loop]:
    loop = Loop(Cable(), clock=clock)
    yield loop
    loop.close()


def program(folder: Path, lines: str) -> Path:
    path = folder / "hook.sh"
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    return path


def turn_until(loop: Loop, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        loop.turn(0.01)


def test_a_hook_runs_in_its_folder_with_the_environment_while_the_loop_goes_on(loop: Loop, tmp_path: Path) -> None:
    hook = Hook(loop, "up", program(tmp_path, 'echo "$INTERFACE" > told'), {"INTERFACE": "tun0"})
    done: list[bool] = []
    hook.go(lambda: done.append(True))
    turn_until(loop, lambda: done)
    assert (tmp_path / "told").read_text() == "tun0\n"
    hook.close()


def test_a_failing_hook_is_logged_and_still_done(loop: Loop, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hook = Hook(loop, "up", program(tmp_path, "exit 7"), {})
    done: list[bool] = []
    hook.go(lambda: done.append(True))
    turn_until(loop, lambda: done)
    assert "the up hook failed: exit code 7" in caplog.text
    hook.close()


def test_a_hook_that_hangs_is_killed_with_all_that_it_started(
    loop: Loop, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = Hook(loop, "up", program(tmp_path, "sleep 600 & wait"), {})
    done: list[bool] = []
    hook.go(lambda: done.append(True))
    loop.turn(0)
    assert not done
    clock.now += round((LIMIT_S + 1) * SECOND_NS)
    turn_until(loop, lambda: done)
    assert "was killed" in caplog.text
    assert "SIGKILL" in caplog.text
    hook.close()


def test_a_waiting_hook_runs_only_when_it_is_told_to(loop: Loop, tmp_path: Path) -> None:
    hook = Hook(loop, "down", program(tmp_path, "echo ran > told"), {}, is_waiting=True)
    loop.turn(0)
    assert not (tmp_path / "told").exists()
    done: list[bool] = []
    hook.go(lambda: done.append(True))
    turn_until(loop, lambda: done)
    assert (tmp_path / "told").read_text() == "ran\n"
    hook.close()


def test_a_waiting_hook_that_is_never_told_to_run_ends_without_running(loop: Loop, tmp_path: Path) -> None:
    hook = Hook(loop, "down", program(tmp_path, "echo ran > told"), {}, is_waiting=True)
    hook.close()
    assert not (tmp_path / "told").exists()


def test_a_program_that_cannot_be_started_is_an_error(loop: Loop, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Hook(loop, "up", tmp_path / "missing", {})
