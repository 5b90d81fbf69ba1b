"""The gateway's log on standard error, which may be full, closed or read by nobody: no line of it holds up a frame.

A line that cannot be written at once is lost and counted, and the next line that can be written says how many were
lost. Nothing is kept for later: after a day the kept lines would come out all at once, and say little about the
present.
"""

from __future__ import annotations

import logging
import os
import select
import sys

_ATOMIC_BYTES = 4096  # PIPE_BUF: a pipe that is said to have room takes so much without waiting (pipe(7))
_STDERR = 2


class LogHandler(logging.Handler):
    """Writes to the descriptor `fd`. It does not close the descriptor and leaves it blocking, because other programs
    may share it."""

    def __init__(self, fd: int = _STDERR) -> None:
        super().__init__()
        self._fd = fd
        self._lost = 0
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, or lose and count it."""
        try:
            text = self.format(record) + "\n"
        except Exception as error:  # noqa: BLE001 - a bug in a message is told, and does not end the gateway
            text = f"ERROR: a bug in a message of {record.pathname}:{record.lineno}: {error!r}\n"
        if self._lost:
            text = f"WARNING: {self._lost} messages before this one could not be written\n{text}"
        if self._write(text.encode(errors="backslashreplace")):
            self._lost = 0
        else:
            self._lost += 1

    def _write(self, data: bytes) -> bool:
        """True where the descriptor took all of it at once."""
        left = memoryview(data)
        try:
            while left:
                if not any(events & select.POLLOUT for _, events in self._poll.poll(0)):
                    return False
                left = left[os.write(self._fd, left[:_ATOMIC_BYTES]) :]
        except OSError:  # full, or closed: there is nobody to tell
            return False
        return True


def fill_standard_descriptors() -> None:
    """Open /dev/null in place of each standard descriptor that was closed when we were started.

    Otherwise the next file opened would get its number, and lines of the log would go to a socket or a device. Call it
    before anything is opened.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(_STDERR, "w", closefd=False)  # noqa: SIM115 - as long as the process


def log_to_stderr() -> None:
    """Log INFO and above to standard error, for the whole process. Call it once."""
    fill_standard_descriptors()
    sys.stderr.flush()
    handler = LogHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
