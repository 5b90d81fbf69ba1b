"""The rooms' READMEs name the files that are there: each file in its room's, and none that is gone."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests import conftest

HERE = Path(__file__).resolve().parent.parent
PACKAGES = [*tomllib.loads((HERE / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"], "trials"]
ROOMS = {name: HERE.joinpath(*name.split(".")) for name in PACKAGES}
PATH = re.compile(
    r"`((?:{}|tests|scripts|packaging)/[\w./-]+\.\w+)`".format("|".join(r for r in ROOMS if "." not in r))
)
CLASS = re.compile(r"^(?:cdef )?class (\w+)", re.MULTILINE)
FILE = re.compile(r"`(?:[\w.-]+/)*([\w.-]+\.pyx?)`")


def files_of(folder: Path) -> set[str]:
    """The modules of a room and of the rooms inside it that have no README of their own."""
    return {
        file.name
        for ending in ("*.py", "*.pyx")
        for file in folder.rglob(ending)
        if folder == next(above for above in file.parents if (above / "README.md").exists())
    }


@pytest.mark.parametrize("room", [name for name, folder in ROOMS.items() if (folder / "README.md").exists()])
def test_a_readme_names_each_file_of_its_room_and_none_that_is_gone(room: str) -> None:
    text = (ROOMS[room] / "README.md").read_text()
    named = set(FILE.findall(text))
    if "| all others |" not in text:
        assert files_of(ROOMS[room]) - {"__init__.py", "__main__.py"} - named == set(), "not named"
    tests = {file.name for file in (HERE / "tests").rglob("*.py")}
    there = tests.union(*map(files_of, ROOMS.values()))
    assert named - there == set(), "gone"


def test_files_that_a_page_names_by_their_path_are_there() -> None:
    pages = [*HERE.glob("*.md"), *(HERE / "docs").glob("*.md"), HERE / "packaging" / "README.md"]
    named = {path for page in pages for path in PATH.findall(page.read_text())}
    assert len(named) > 50
    assert {path for path in named if not (HERE / path).exists()} == set()


def test_the_glossary_names_things_that_are_there() -> None:
    classes = {
        name
        for folder in ROOMS.values()
        for ending in ("*.py", "*.pyx")
        for file in folder.rglob(ending)
        for name in CLASS.findall(file.read_text())
    }
    lines = (line.split("|") for line in (HERE / "docs" / "glossary.md").read_text().splitlines())
    carriers = {name for cells in lines if len(cells) == 5 for name in re.findall(r"`([^`]+)`", cells[3])}
    assert len(carriers) > 50
    assert {name for name in carriers - classes - {"[offload]"} if not (HERE / name).exists()} == set()


def test_files_that_are_dealt_out_to_workers_first_are_there() -> None:
    assert [name for name in (conftest.PATIENT, *conftest.LONG) if not (HERE / name).is_file()] == []
