"""The version of the installed package, or of the source tree that it runs from."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path


def version() -> str:
    """The version as `pyproject.toml` names it."""
    source = Path(__file__).parent.parent / "pyproject.toml"
    if source.is_file():
        return str(tomllib.loads(source.read_text())["project"]["version"])
    return metadata.version("tapbridge")
