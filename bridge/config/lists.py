"""Prefix files on disk: the lists of `[offload]`, and the folder with one file for each node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bridge.config import files
from route.lists import Prefix, PrefixList, parse_prefixes
from route.table import private_range

_BACKUP_BEGINNINGS = (".", "#")
_BACKUP_ENDINGS = ("~", "#", ".bak", ".old", ".orig", ".rej", ".save", ".swp", ".tmp")


class PrefixFiles(NamedTuple):
    """The lists that a configuration names. `offload`: in its order; `nodes`: by node, in the order of names."""

    offload: list[PrefixList]
    nodes: dict[str, PrefixList]


def read_prefix_file(path: Path) -> PrefixList:
    """The prefixes of one file; bytes that are no UTF-8 are an error of their line.

    Raises `OSError` where the file cannot be read.
    """
    data = files.read(path)
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
