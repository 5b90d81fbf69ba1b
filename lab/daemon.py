"""A daemon of ours on one of the lab's machines, as `bridgectl run` makes it."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from bridge.control.client import ControlError, NobodyListens, request, stream
from lab.namespace import Namespace
from lab.process import CommandFailed, LabProcess

READY_S = 20.0
_POLL_S = 0.02


def start_daemon(machine: Namespace, config_path: Path, more: Mapping[str, str] | None = None) -> LabProcess:
    """Start one with that configuration and `more` in its environment; `await_answer` waits until it serves."""
    return machine.start(sys.executable, "-m", "bridgectl", "run", "-c", str(config_path), more=more)


def await_answer(daemon: LabProcess, socket_path: Path, who: str) -> None:
    """Wait until a daemon that was started answers at its control socket; `CommandFailed` with what `who` said where it
    does not within `READY_S`."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if not daemon.is_running:
            raise CommandFailed(f"{who} ended with exit code {daemon.wait()}\n{daemon.errors()}")
        try:
            request(socket_path, "stats", {})
        except (NobodyListens, ControlError):  # a killed gateway's child may still listen
            time.sleep(_POLL_S)
        else:
            return
    raise CommandFailed(f"{who} gave no answer within {READY_S:g} s\n{daemon.errors()}")


def watch(socket_path: Path, port: str) -> Generator[dict[str, Any], None, None]:
    """The frames of a port from now on (`capture` on the control socket), each within `READY_S`."""
    records = stream(socket_path, "capture", {"port": port}, record_timeout_s=READY_S)
    next(records)
    return records
