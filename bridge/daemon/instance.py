"""One gateway per control socket: the process that holds the lock beside the socket is the gateway.

The lock is the kernel's (flock). It ends with the process however that ended, and the next holder replaces a socket
file that a killed gateway left behind. Nobody else may open the lock file: a user who can read it can hold its lock,
and no gateway would start again. If a gateway is killed while its child answers a question, the child has lock and
devices until it has ended, too; a start waits for that.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

DYING_S = 5.0
"""The longest time that children of a killed gateway take to end; the kernel kills them with it."""
_POLL_S = 0.01


class AlreadyRunning(Exception):
    """Another gateway serves the socket. `pid`: its process, None where the lock file does not say."""

    def __init__(self, socket_path: Path, pid: int | None) -> None:
        super().__init__(f"another gateway{f' (process {pid})' if pid else ''} serves {socket_path}")
        self.pid = pid


class InstanceLock:
    """The lock of one control socket, held from construction to `release`.

    The constructor raises `AlreadyRunning` where another process holds it, `OSError` where the file cannot be made.
    """

    def __init__(self, socket_path: Path) -> None:
        self.path = socket_path.with_name(socket_path.name + ".lock")
        deadline = time.monotonic() + DYING_S
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(fd, 32, 0).strip()
                os.close(fd)
                pid = int(holder) if holder.isdigit() else None
                if pid is not None and not _is_alive(pid) and time.monotonic() < deadline:
                    time.sleep(_POLL_S)
                    continue
                raise AlreadyRunning(socket_path, pid) from error
            if self._is_current(fd):
                break
            os.close(fd)  # the holder before us removed the file between our open and our lock
        os.fchmod(fd, 0o600)  # an earlier version let everyone read it
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        self._fd = fd

    def _is_current(self, fd: int) -> bool:
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(fd))

    def release(self) -> None:
        """Remove the file while the lock is still held, then let go; a second call does nothing. Where its folder is
        not ours any more, the warden removes the file."""
        if self._fd >= 0:
            with suppress(PermissionError):
                self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
