"""The operator's `up` and `down` programs: run beside the loop, with a time limit.

The gateway gives up its rights once its ports stand, but `down` may need them to undo what `up` did. So a shell that
waits for one line is started with `up`'s rights and becomes `down` when it gets that line; when the gateway is killed
it reads the end of its input instead and just ends.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from bridge.loop import Loop

log = logging.getLogger(__name__)

LIMIT_S = 30.0
"""A hook that runs longer is killed with all that it started."""

_WAIT_THEN_RUN = 'read -r go && exec "$0" </dev/null'


class Hook:
    """One program, run in its own folder. `environment`: what it gets beside our own.

    `OSError` where it cannot be started.
    """

    def __init__(
        self, loop: Loop, name: str, program: Path, environment: Mapping[str, str], *, is_waiting: bool = False
    ) -> None:
        self._loop = loop
        self._name = name
        self._done: Callable[[], None] | None = None
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _WAIT_THEN_RUN, program] if is_waiting else [program],
            stdin=subprocess.PIPE if is_waiting else subprocess.DEVNULL,
            cwd=program.parent,
            env={**os.environ, **environment},
            process_group=0,
        )

    def go(self, done: Callable[[], None]) -> None:
        """Let it run (where it waits) and call `done` when it has ended, well or not; what went wrong is logged."""
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.write(b"go\n")
                self._process.stdin.close()
        self._done = done
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add(self._pidfd, self._ended)
        self._limit = self._loop.call_later(LIMIT_S, self._kill)

    def _ended(self, _events: int) -> None:
        self._loop.remove(self._pidfd)
        os.close(self._pidfd)
        self._limit.cancel()
        status = self._process.wait()
        if status:
            how = f"exit code {status}" if status > 0 else f"signal {signal.Signals(-status).name}"
            log.error("the %s hook failed: %s", self._name, how)
        done, self._done = self._done, None
        if done is not None:
            done()

    def _kill(self) -> None:
        log.error("the %s hook still ran after %g s and was killed", self._name, LIMIT_S)
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def close(self) -> None:
        """End it where it stands: a waiting one has nothing to do, a running one is killed. Call it once."""
        if self._process.poll() is None:
            self._signal_group(signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        if self._done is not None:
            self._loop.remove(self._pidfd)
            os.close(self._pidfd)
            self._limit.cancel()
            self._done = None
