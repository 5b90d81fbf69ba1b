"""Both ends of the load, a program in C (`ends.c`) that is compiled when it is wanted: it must cost little.

Both ends share the machine with the gateway. An epoll loop in Python costs as much a connection as a compiled gateway
does, and would bound the figure.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from lab.namespace import Namespace
from lab.process import CommandFailed, LabProcess

PORT = 7785
SOURCE = Path(__file__).with_name("ends.c")
_COMPILE_S = 60.0


class NoCompiler(Exception):
    """There is no gcc here."""


class Calls(NamedTuple):
    """The callers' own account: connections that were done and that failed, callers that still waited at the end,
    seconds, their own CPU seconds, and the time of `connect` in microseconds (median, 99th percentile, longest)."""

    done: int
    failed: int
    waiting: int
    seconds: float
    cpu_s: float
    p50_us: float
    p99_us: float
    longest_us: float


def compiled(folder: Path) -> Path:
    """Compile the program into this folder. Raises `NoCompiler`, or `CommandFailed` with the compiler's words."""
    if shutil.which("gcc") is None:
        raise NoCompiler("gcc is not installed (Debian: gcc libc6-dev)")
    program = folder / "ends"
    words = ["gcc", "-O2", "-o", str(program), str(SOURCE)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=_COMPILE_S, check=False)
    if done.returncode:
        raise CommandFailed(done.stderr)
    return program


def serve(program: Path, where: Namespace, address: str) -> LabProcess:
    """Start the answering end; it runs until it is stopped."""
    server = where.start(str(program), "serve", address, str(PORT))
    if server.line() != "ready":
        raise CommandFailed(f"the answering end does not listen\n{server.errors()}")
    return server


def call(program: Path, where: Namespace, address: str, callers: int, seconds: float) -> LabProcess:
    """Start the callers; `calls_of` waits for their account."""
    return where.start(str(program), "call", address, str(PORT), str(callers), f"{seconds:g}")


def calls_of(process: LabProcess, seconds: float) -> Calls:
    """The callers' account once they have ended. Raises `CommandFailed` where they end badly or not at all."""
    return Calls(**process.document(seconds + 20.0))
