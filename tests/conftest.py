"""What all tests share: where real captures and lists lie, and the flag that rewrites golden files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# A shared machine may pause any example for longer than a deadline; CI repeats the same examples every time.
settings.register_profile("tapbridge", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("tapbridge")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="rewrite the golden files; read the difference")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of captures, prefix lists and vectors beside the project; tests skip where it is missing."""
    folder = Path(os.environ.get("TAPBRIDGE_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no folder of shared captures beside the project")
    return folder
