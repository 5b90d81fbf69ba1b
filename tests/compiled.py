"""Where the compiled part is needed: skip where it was not built, but never on the build machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from flow.plain import PlainTable
from flow.table import Table

if TYPE_CHECKING:
    from bridge.ports.burst import CompiledBursts
    from bridge.ports.police import CompiledPolice
    from flow.fast import CompiledTable
    from tunnel.burst import CompiledCipher


def needs_a_compiler() -> None:
    """Skip where there is no compiler; with CI=true that is a failure, unless it was left out on purpose."""
    if shutil.which("gcc") is None:
        assert os.environ.get("CI") != "true" or os.environ.get("WITHOUT_COMPILER"), "scripts/install brings gcc"
        pytest.skip("no gcc here")


def compiled(module: str, name: str) -> Any:
    """A compiled class, or a skip with its reason; with CI=true a missing one is a failure."""
    try:
        return getattr(import_module(module), name)
    except ImportError as missing:
        # WITHOUT_COMPILER says that it was left out on purpose.
        if os.environ.get("CI") == "true" and not os.environ.get("WITHOUT_COMPILER"):
            raise
        pytest.skip(f"not compiled here: {missing}")


def compiled_cipher() -> type[CompiledCipher]:
    """Implementations that seal and open bursts."""
    found: type[CompiledCipher] = compiled("tunnel.burst", "CompiledCipher")
    return found


def compiled_table() -> type[CompiledTable]:
    """The flow table."""
    found: type[CompiledTable] = compiled("flow.fast", "CompiledTable")
    return found


def table_kind(name: str) -> Callable[[int], Table]:
    """The `plain` flow table, or the `compiled` one."""
    return PlainTable if name == "plain" else compiled_table()


def compiled_bursts() -> type[CompiledBursts]:
    """The burst loop of ports."""
    found: type[CompiledBursts] = compiled("bridge.ports.burst", "CompiledBursts")
    return found


def compiled_police() -> type[CompiledPolice]:
    """Implementations that judge frames which are to be walked."""
    found: type[CompiledPolice] = compiled("bridge.ports.police", "CompiledPolice")
    return found
