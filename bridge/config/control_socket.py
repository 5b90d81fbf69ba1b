"""The path of the control socket, read without checking the configuration: the daemon has checked it already."""

from __future__ import annotations

import tomllib
from pathlib import Path

from bridge.config.defaults import DEFAULT_SOCKET


def socket_of(path: Path) -> Path | None:
    """The socket that the configuration at `path` names, else `DEFAULT_SOCKET`; None where its value is no text.

    Raises `OSError` where the file cannot be read, `ValueError` where it is no TOML.
    """
    with path.open("rb") as file:
        document = tomllib.load(file)
    control = document.get("control", {})
    written = control.get("socket", DEFAULT_SOCKET) if isinstance(control, dict) else DEFAULT_SOCKET
    return (path.parent / written).absolute() if isinstance(written, str | Path) else None
