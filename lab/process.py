"""Processes of the lab: started without a shell, waited for with a deadline, never left behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COMMAND_S = 30.0
"""The time for a command unless it is said otherwise."""
STOP_S = 10.0


class CommandFailed(Exception):
    """A command of the lab did not do what it should; the message holds what it printed."""


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, with the project's modules on Python's path."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **(more or {})}


def run(words: Sequence[str], *, check: bool = True, timeout_s: float = COMMAND_S) -> str:
    """Run a command to its end; what it printed. `CommandFailed` where it takes too long, or fails and `check` is
    true."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(),
            timeout=timeout_s,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        printed = error.output.decode(errors="replace") if isinstance(error.output, bytes) else error.output
        raise CommandFailed(f"{' '.join(words)}: no end within {timeout_s:g} s\n{printed or ''}") from error
    if check and done.returncode:
        raise CommandFailed(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


class LabProcess:
    """A command that goes on. Its standard output is read by lines, its standard error is kept in a file; one that
    `listens` has a standard input to `say` lines to."""

    def __init__(self, words: Sequence[str], more: Mapping[str, str] | None = None, *, listens: bool = False) -> None:
        self.words = list(words)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._pending = b""
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE if listens else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(more),
            process_group=0,  # Ctrl-C is for us; we take the lab down in order
        )

    @property
    def pid(self) -> int:
        """Of the command itself: `nsenter` and `setpriv` become it."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """False once it has ended."""
        return self._process.poll() is None

    def say(self, line: str) -> None:
        """Give it a line on its standard input; `CommandFailed` where it reads no more."""
        assert self._process.stdin is not None, "it does not listen"
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise CommandFailed(f"{' '.join(self.words)} reads no more\n{self.errors()}") from error

    def hang_up(self) -> None:
        """End its standard input."""
        assert self._process.stdin is not None, "it does not listen"
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def line(self, timeout_s: float = COMMAND_S) -> str:
        """The next line that it prints. `CommandFailed` where none comes in time."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._pending:
            if not self._read(deadline):
                raise CommandFailed(f"{' '.join(self.words)}: no line within {timeout_s:g} s\n{self.errors()}")
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode()

    def finish(self, timeout_s: float = COMMAND_S) -> str:
        """Wait for a good end; the output that nobody has read yet. `CommandFailed` after a bad end, or none in
        time."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline):
            pass
        try:
            code = self._process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"{' '.join(self.words)}: no end within {timeout_s:g} s\n{self.errors()}") from error
        if code:
            raise CommandFailed(f"{' '.join(self.words)}: exit code {code}\n{self.errors()}")
        return self._pending.decode()

    def document(self, timeout_s: float = COMMAND_S) -> dict[str, Any]:
        """Wait for its end, good or bad; the JSON object that it printed last. `CommandFailed` where there is
        none."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline):
            pass
        self.wait(max(deadline - time.monotonic(), 0))
        try:
            found: dict[str, Any] = json.loads(self._pending.decode().strip().splitlines()[-1])
        except (IndexError, ValueError) as error:
            raise CommandFailed(f"{' '.join(self.words)}: no document\n{self.errors()}") from error
        return found

    def _read(self, deadline: float) -> bool:
        """Take in what there is until the deadline; False where nothing more comes."""
        assert self._process.stdout is not None
        left_s = max(deadline - time.monotonic(), 0)
        if not select.select([self._process.stdout], [], [], left_s)[0]:
            return False
        data = os.read(self._process.stdout.fileno(), 1 << 16)
        self._pending += data
        return bool(data)

    def errors(self) -> str:
        """Its standard error so far."""
        length = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), length, 0).decode(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float = STOP_S) -> int:
        """Its exit code, negative for a signal. `CommandFailed` where it goes on for longer."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"{' '.join(self.words)}: no end within {timeout_s:g} s\n{self.errors()}") from error

    def stop(self) -> None:
        """Ask it to end, then make it; a second call does nothing."""
        if self.is_running:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):  # what it was told last and did not read
                    stream.close()
        self._errors.close()
