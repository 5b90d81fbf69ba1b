"""The operator's `up` and `down` programs. They run beside the loop, with a time limit.

The gateway gives up its rights before it forwards, but `down` may need them to undo what `up` did. So a shell is
started early, with the rights of `up`; it waits for one line and then becomes `down`. When the gateway is killed, the
shell reads the end of its input instead, and ends.

The gateway may not kill a program that has more rights than itself. So beside each program a second shell waits in the
same process group for one word: `done` ends the shell alone, and the end of its input kills the group. The input also
ends when the gateway does.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from bridge.config.load import Config
from bridge.loop.loop import Loop

log = logging.getLogger(__name__)

LIMIT_S = 30.0
"""A hook that runs longer is killed with all that it started."""

_RUN = """\
exec 3<&0 </dev/null
({ read -r word <&3 && [ "$word" = done ] || kill -KILL 0; } >/dev/null 2>&1 &)
exec "$0" 3<&-"""
_WAIT_THEN_RUN = f"read -r go || exit 0\n{_RUN}"


class Hook:
    """One program, run in its own folder. `environment`: what it gets beside our own.

    Raises `OSError` where it cannot be started.
    """

    def __init__(
        self, loop: Loop, name: str, program: Path, environment: Mapping[str, str], *, is_waiting: bool = False
    ) -> None:
        self._loop = loop
        self._name = name
        self._done: Callable[[], None] | None = None
        self._is_waiting = is_waiting
        if not os.access(program, os.X_OK):
            missing = errno.EACCES if program.exists() else errno.ENOENT
            raise OSError(missing, os.strerror(missing), str(program))
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _WAIT_THEN_RUN if is_waiting else _RUN, program],
            stdin=subprocess.PIPE,
            cwd=program.parent,
            env={**os.environ, **environment},
            process_group=0,
        )

    def go(self, done: Callable[[], None]) -> None:
        """Let it run (where it waits) and call `done` when it has ended, well or not; what went wrong is logged."""
        if self._is_waiting:
            self._say(b"go\n")
        self._done = done
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add(self._pidfd, self._ended)
        self._limit = self._loop.call_later(LIMIT_S, self._kill)

    def _ended(self, _events: int) -> None:
        self._loop.remove(self._pidfd)
        os.close(self._pidfd)
        self._limit.cancel()
        status = self._process.wait()
        self._say(b"done\n")
        self._end_input()
        if status:
            how = f"exit code {status}" if status > 0 else f"signal {signal.Signals(-status).name}"
            log.error("the %s hook failed: %s", self._name, how)
        done, self._done = self._done, None
        if done is not None:
            done()

    def _kill(self) -> None:
        log.error("the %s hook still ran after %g s and was killed", self._name, LIMIT_S)
        self._kill_group()

    def _say(self, line: bytes) -> None:
        assert self._process.stdin is not None
        if not self._process.stdin.closed:  # that was the end of its group
            with suppress(BrokenPipeError):
                self._process.stdin.write(line)
                self._process.stdin.flush()

    def _end_input(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def _kill_group(self) -> None:
        """By ourselves, where that is ours to do, and by the shell beside it."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._end_input()

    def close(self) -> None:
        """End it where it stands: a waiting one has nothing to do, a running one is killed. Call it once."""
        if self._process.poll() is None:
            self._kill_group()
        self._process.wait()
        self._end_input()
        if self._done is not None:
            self._loop.remove(self._pidfd)
            os.close(self._pidfd)
            self._limit.cancel()
            self._done = None


def hook_environment(config: Config, gateway_before: str | None) -> dict[str, str]:
    """The variables that both hooks get, each only where it is known.

    INTERFACE and ADDRESS are tun0's, else tap0's. PEER_IP is the endpoint of the default node, or of its relay.
    DEFAULT_GW is `gateway_before`, the kernel's next hop before our ports came up.
    """
    port = config.tun0 or config.tap0
    environment = {}
    if port is not None:
        environment["INTERFACE"] = port.interface
        environment["ADDRESS"] = str(port.address.ip)
    peer = config.peer.get(config.default_node) if config.default_node else None
    while peer is not None and peer.via is not None:
        peer = config.peer[peer.via]
    if peer is not None and peer.endpoint:
        environment["PEER_IP"] = peer.endpoint.rpartition(":")[0].strip("[]")
    if gateway_before is not None:
        environment["DEFAULT_GW"] = gateway_before
    return environment
