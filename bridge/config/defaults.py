"""Default paths of a gateway, apart from the models: a command that only needs a path does not wait for pydantic."""

from __future__ import annotations

from pathlib import Path
from typing import Final

DEFAULT_SOCKET: Final = Path("/run/tapbridge/control.sock")
"""`control.socket`."""
DEFAULT_STATE: Final = Path("/var/lib/tapbridge/tunnel.json")
"""`tunnel.state_file`."""
DEFAULT_ROUTES_FOLDER: Final = "route"
"""`tunnel.routes`, beside the configuration file."""
