"""Common to all tests: the place of real captures and lists, and the flag that rewrites golden files."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

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


@cache
def group_of(file: str) -> str:
    """The group that shares a worker where there are several: all labs but the one that mostly waits, so that none
    disturbs another's deadlines; else each file, whose fixtures it keeps. The controller knows no markers: the text is
    asked."""
    return "lab" if file != PATIENT and "mark.lab" in (ROOT / file).read_text(encoding="utf-8") else file


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long groups first, so that no worker is left alone with one."""
    if hasattr(config, "workerinput"):
        rank = {"lab": 0, PATIENT: 1, **dict.fromkeys(LONG, 2)}
        items.sort(key=lambda item: rank.get(group_of(item.nodeid.partition("::")[0]), 3))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A group goes to one worker and stays in the order of collection. Marks of xdist would do (`xdist_group`), but 3.8
    writes them where pytest 9.2 no longer looks, and each test went its own way."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - most runs have one process

    class Dealt(LoadScopeScheduling):  # type: ignore[misc]  # no type information is published
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.partition("::")[0])

    return Dealt(config, log)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of captures, prefix lists and vectors beside the project; tests skip where it is missing."""
    folder = Path(os.environ.get("TAPBRIDGE_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no folder of shared captures beside the project")
    return folder
