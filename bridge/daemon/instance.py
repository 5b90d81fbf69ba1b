"""One gateway per control socket: whoever holds the lock beside the socket is it.

The lock is the kernel's (flock), so it ends with the process however that ended, and a socket file that a killed
gateway left behind is simply taken over by the next holder. Nobody else may open the file: whoever can read it can hold
its lock, and no gateway would start again. A child that was answering a question when its gateway was
killed has the lock for the moment that its own end takes, and the devices too: that is waited for.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

DYING_S = 5.0
"""What the children of a killed gateway may take to end; the kernel kills them with it."""
_POLL_S = 0.01


class AlreadyRunning(Exception):
    """Another gateway serves the socket. `pid`: its process, None where it cannot be told."""

    def __init__(self, socket_path: Path, pid: int | None) -> None:
        super().__init__(f"another gateway{f' (process {pid})' if pid else ''} serves {socket_path}")
        self.pid = pid


class InstanceLock:
    """Held from construction to `release`; `AlreadyRunning` where somebody else holds it."""

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
        not ours any more the file is the warden's to remove."""
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
