"""Common to tests of the tunnel between real kernels."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from lab.process import LabProcess
from lab.topology import Lab

DEADLINE_S = 30.0


def until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {deadline_s:g} s: {what}"
        os.sched_yield()


def peer(lab: Lab, name: str = "hk") -> dict[str, Any]:
    """The daemon's account of a peer."""
    found: dict[str, Any] = next(one for one in lab.ask("peers")["peers"] if one["name"] == name)
    return found


def run(lab: Lab, configuration: str) -> LabProcess:
    """Start the daemon."""
    lab.configure(configuration)
    return lab.start_gateway()
