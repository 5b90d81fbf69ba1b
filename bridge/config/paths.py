"""Paths that stand where a configuration names none. `bridgectl` reads them without the configuration's libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Final

DEFAULT_SOCKET: Final = Path("/run/tapbridge/control.sock")
"""The control socket."""
