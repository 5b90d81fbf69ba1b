"""Lists that are bad, empty or halved beside their last good copy (reports 30, 39): start, reload, force."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bridge.config.lists import ListCopy, ListReader, ListRule

HUNDRED = b"".join(b"10.%d.0.0/16\n" % number for number in range(100))
FORTY_NINE = b"".join(b"10.%d.0.0/16\n" % number for number in range(49))
COPY = ListCopy(1_796_074_380, HUNDRED)
SPOILED = {
    "a bad line": (HUNDRED + b"2001:250::/35\n", "it has lines that are no prefix"),
    "an error page": (b"<html>404</html>\n", "it has lines that are no prefix"),
    "no UTF-8": (b"\xff\xfe1\x000\x00", "it has lines that are no prefix"),
    "nothing": (b"", "it has no prefixes and that copy 100"),
    "comments alone": (b"# updated\n", "it has no prefixes and that copy 100"),
    "less than half": (FORTY_NINE, "it has 49 prefixes and that copy 100"),
}


def reader(rule: ListRule, path: Path, copy: ListCopy | None = COPY) -> ListReader:
    return ListReader(rule, {} if copy is None else {os.path.abspath(path): copy})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "list.txt"


@pytest.mark.parametrize("how", SPOILED)
def test_a_start_uses_the_copy_and_says_so(path: Path, how: str) -> None:
    text, why = SPOILED[how]
    path.write_bytes(text)
    reading = reader(ListRule.START, path)
    found = reading.read(path)
    assert (len(found.entries), found.errors) == (100, [])
    assert reading.warnings[-1] == f"{path}: last good copy of 2026-11-30 21:33 UTC is used: {why}"
    assert reading.dates == {str(path): "2026-11-30 21:33 UTC"}
    assert reading.texts == {str(path): HUNDRED}, "the copy stays the copy"


def test_a_start_without_the_file_uses_the_copy(path: Path) -> None:
    reading = reader(ListRule.START, path)
    assert len(reading.read(path).entries) == 100
    assert reading.warnings == [f"{path}: last good copy of 2026-11-30 21:33 UTC is used: no such file or directory"]
    with pytest.raises(FileNotFoundError):
        reader(ListRule.RELOAD, path).read(path)


@pytest.mark.parametrize("how", SPOILED)
def test_a_reload_refuses_it_and_force_takes_it(path: Path, how: str) -> None:
    path.write_bytes(SPOILED[how][0])
    refused = reader(ListRule.RELOAD, path).read(path)
    assert refused.errors
    assert all(error.startswith(f"{path}:") for error in refused.errors)
    forced = reader(ListRule.FORCE, path)
    taken = forced.read(path)
    assert (taken.errors, taken.entries) == ([], refused.entries)
    assert forced.warnings
    assert forced.texts == {str(path): SPOILED[how][0]}, "it is the copy from now on"


def test_half_of_the_copy_is_enough_and_a_short_list_may_shrink_to_one(path: Path) -> None:
    path.write_bytes(FORTY_NINE + b"10.49.0.0/16\n")
    assert reader(ListRule.RELOAD, path).read(path).errors == []
    path.write_bytes(b"10.0.0.0/8\n")
    assert reader(ListRule.RELOAD, path, ListCopy(0, FORTY_NINE + FORTY_NINE)).read(path).errors == []


def test_without_a_copy_a_bad_list_is_an_error_and_an_empty_one_is_taken(path: Path) -> None:
    for rule in (ListRule.START, ListRule.RELOAD):
        path.write_bytes(b"nonsense\n")
        assert len(reader(rule, path, None).read(path).errors) == 1
        path.write_bytes(b"")
        assert reader(rule, path, None).read(path).errors == []
