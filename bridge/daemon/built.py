"""The modules that were compiled here. The plain twin of a module that was not compiled serves; `run` says so, once."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping

from route.engine import BEST

MODULES = (
    "alias.compiled.connections",
    "alias.compiled.machine",
    "alias.compiled.records",
    "alias.compiled.rows",
    "alias.compiled.spaces",
    "alias.compiled.store",
    "bridge.ports.burst",
    "bridge.ports.udp.lanes",
    "bridge.ports.police",
    "flow.fast",
    "tunnel.burst",
    "wire.segments",
)
"""Every .pyx file. setup.py finds them by pattern; a test checks that none is forgotten here."""


def missing() -> list[str]:
    """The names of modules that were not compiled, or cannot be loaded here: our own, and pytricia."""
    names = [] if BEST == "pytricia" else ["pytricia"]
    for name in MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            names.append(name)
    return names


def complaint(environment: Mapping[str, str] = os.environ) -> str | None:
    """The sentence for the operator who starts the gateway; None where everything is compiled, or nothing compiled is
    wanted (`TAPBRIDGE_FAST=0`)."""
    names = [] if environment.get("TAPBRIDGE_FAST") == "0" else missing()
    if not names:
        return None
    return f"not compiled here (gcc and Python.h, then install again): {', '.join(names)}; plain Python serves, slower"
