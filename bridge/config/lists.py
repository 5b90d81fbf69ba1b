"""Prefix files on disk: the lists of `[offload]`, and the folder with one file for each node.

A list may be spoiled from one day to the next: a download fails, and the file is empty, half, or another kind of file.
`ListReader` compares it with the last good copy. A start uses the copy in its place, a reload refuses the list, and an
operator who means it takes the list by `bridgectl reload --force`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from bridge.config import files
from route.lists import Prefix, PrefixList, parse_prefixes
from route.table import private_range

_BACKUP_BEGINNINGS = (".", "#")
_BACKUP_ENDINGS = ("~", "#", ".bak", ".old", ".orig", ".rej", ".save", ".swp", ".tmp")


HALVED_FROM: Final = 100
"""A list is *halved* where it has fewer than half of the entries of its copy, and the copy has at least this number."""


class ListCopy(NamedTuple):
    """The last good copy of a list. `taken_s`: when its text was first taken over, in seconds since 1970."""

    taken_s: int
    text: bytes

    @property
    def date(self) -> str:
        """`2026-12-01 02:32 UTC`."""
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.taken_s))


class PrefixFiles(NamedTuple):
    """The lists that a configuration names. `offload`: in its order; `nodes`: by node, in the order of names. `texts`:
    the bytes of each list that is in use, by its absolute path; `copies`: the dates of those among them that are a
    copy."""

    offload: list[PrefixList]
    nodes: dict[str, PrefixList]
    texts: Mapping[str, bytes] = MappingProxyType({})
    copies: Mapping[str, str] = MappingProxyType({})

    def copy_of(self, prefixes: PrefixList) -> str | None:
        """The date of the copy that stands in for a list; None where the list itself is in use."""
        return self.copies.get(os.path.abspath(prefixes.name))


class ListRule(Enum):
    """The fate of a list that is bad, empty or halved beside its copy."""

    START = auto()  # the copy takes its place
    RELOAD = auto()  # it is refused
    FORCE = auto()  # it is taken; of a bad list the lines that can be read


class ListReader:
    """Reads the lists of one configuration. `copies`: the last good ones, by absolute path.

    `warnings`: for the operator; `texts`, `dates`: as `PrefixFiles` wants them.
    """

    def __init__(self, rule: ListRule = ListRule.START, copies: Mapping[str, ListCopy] = MappingProxyType({})) -> None:
        self._rule = rule
        self._copies = copies
        self.warnings: list[str] = []
        self.texts: dict[str, bytes] = {}
        self.dates: dict[str, str] = {}

    def read(self, path: Path) -> PrefixList:
        """The prefixes of one list, or of its copy.

        Raises `OSError` where the file cannot be read and no copy stands in for it.
        """
        key = os.path.abspath(path)
        copy = self._copies.get(key)
        try:
            data = files.read(path)
        except OSError as error:
            if copy is None or self._rule is not ListRule.START:
                raise
            return self._stand_in(path, copy, reason(error))
        found = _parsed(data, path)
        self.texts[key] = data
        if found.errors:
            return self._bad(path, found, copy)
        if copy is not None and copy.text != data:
            return self._shrunk(path, found, copy)
        return found

    def _bad(self, path: Path, found: PrefixList, copy: ListCopy | None) -> PrefixList:
        if self._rule is ListRule.FORCE:
            self.warnings += found.errors
            return found._replace(errors=[])
        if copy is None or self._rule is ListRule.RELOAD:
            return found
        self.warnings += found.errors
        return self._stand_in(path, copy, "it has lines that are no prefix")

    def _shrunk(self, path: Path, found: PrefixList, copy: ListCopy) -> PrefixList:
        """A list that can be read: is it empty or halved beside its copy?"""
        had, has = len(_parsed(copy.text, path).entries), len(found.entries)
        if not (has == 0 < had or (had >= HALVED_FROM and 2 * has < had)):
            return found
        why = f"it has {has or 'no'} prefixes and that copy {had}"
        if self._rule is ListRule.START:
            return self._stand_in(path, copy, why)
        what = f"{path}:1: this list has {has or 'no'} prefixes, its last good copy of {copy.date} has {had}"
        if self._rule is ListRule.FORCE:
            self.warnings.append(f"{what}: taken all the same")
            return found
        return found._replace(errors=[f"{what}: mend it, or take it by `bridgectl reload --force`"])

    def _stand_in(self, path: Path, copy: ListCopy, why: str) -> PrefixList:
        key = os.path.abspath(path)
        self.texts[key], self.dates[key] = copy.text, copy.date
        self.warnings.append(f"{path}: last good copy of {copy.date} is used: {why}")
        return _parsed(copy.text, path)._replace(errors=[])


def read_prefix_file(path: Path) -> PrefixList:
    """The prefixes of one file; bytes that are no UTF-8 are an error of their line.

    Raises `OSError` where the file cannot be read.
    """
    return _parsed(files.read(path), path)


def _parsed(data: bytes, path: Path) -> PrefixList:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return PrefixList(str(path), [], [f"{path}:{line}: this is no UTF-8 text, give one prefix a line"])
    return parse_prefixes(text, str(path))


def node_files(folder: Path) -> list[Path]:
    """The files of a route folder in the order of their names, without hidden files and backups of editors.

    Each is named after a node. Raises `OSError` where the folder cannot be read.
    """
    return sorted(folder / name for name in files.names_of_files(folder) if not _is_backup(name))


def _is_backup(name: str) -> bool:
    return name.startswith(_BACKUP_BEGINNINGS) or name.endswith(_BACKUP_ENDINGS)


def warnings_of(lists: PrefixFiles) -> Iterator[str]:
    """Lists without an entry, and entries without effect: at most one warning of a kind for a list, at the line of the
    first such entry. A download that failed leaves an empty file."""
    for prefixes in (*lists.offload, *lists.nodes.values()):
        if not prefixes.entries and not prefixes.errors:
            yield f"{prefixes.name}:1: this list is empty: nothing goes where it says"
    for prefixes in lists.offload:
        idle = [
            (line, prefix, around)
            for network, length, line in prefixes.entries
            if (around := private_range(prefix := Prefix(network, length)))
        ]
        if idle:
            line, prefix, around = idle[0]
            yield f"{prefixes.name}:{line}: {prefix} is never offloaded, it lies in {around}{_and_more(idle)}"
    for index, (node, prefixes) in enumerate(lists.nodes.items()):
        seen = {(network, length) for network, length, _ in prefixes.entries}
        for earlier in list(lists.nodes.values())[:index]:
            twice = [entry for entry in earlier.entries if entry[:2] in seen]
            if twice:
                prefix = Prefix(*twice[0][:2])
                what = f"{prefix} is named for {node} too, the first name in the alphabet wins"
                yield f"{earlier.name}:{twice[0][2]}: {what}{_and_more(twice)}"


def _and_more(found: list[tuple[int, Prefix, Prefix]] | list[tuple[int, int, int]]) -> str:
    return f" (and {len(found) - 1} more in this file)" if len(found) > 1 else ""


def reason(error: OSError) -> str:
    """The kernel's reason why a file cannot be read, as `no such file or directory`."""
    return (error.strerror or str(error)).lower()
