"""What all tests share: where real captures and lists lie, and the flag that rewrites golden files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

PATIENT = "tests/lab/test_two_minutes.py"
LONG = frozenset({"tests/test_build.py", "tests/test_without_compiled.py"})

# A shared machine may pause any example for longer than a deadline; CI repeats the same examples every time.
settings.register_profile("tapbridge", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("tapbridge")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="rewrite the golden files; read the difference")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Who shares a worker where there are several (`--dist loadgroup`). All labs do but the one that mostly waits: one
    after the other, none disturbs another's deadlines. Else each file, whose fixtures it keeps. Long ones come first.
    """
    if not getattr(config.option, "loadgroup", False):
        return
    rank: dict[str, int] = {}
    for item in items:
        file = item.nodeid.partition("::")[0]
        in_lab = item.get_closest_marker("lab") is not None and file != PATIENT
        group = "lab" if in_lab else file
        rank[item.nodeid] = {"lab": 0, PATIENT: 1, **dict.fromkeys(LONG, 2)}.get(group, 3)
        item.add_marker(pytest.mark.xdist_group(group.replace("/", ".")))
    items.sort(key=lambda item: rank[item.nodeid])


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of captures, prefix lists and vectors beside the project; tests skip where it is missing."""
    folder = Path(os.environ.get("TAPBRIDGE_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no folder of shared captures beside the project")
    return folder
