"""Reading the operator's files: configuration, lists, keys. A gateway that has become another user may not open
some of them any more; the opener that was set by `ask` then opens them in its place.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

Opener = Callable[[Path], int]
"""Opens a file for reading, or a folder for listing, and returns the descriptor. Raises `OSError`."""

_ask: list[Opener] = []


def ask(opener: Opener | None) -> None:
    """Set the opener of files that this process may not open, for the whole process; None: such files stay closed."""
    _ask[:] = [] if opener is None else [opener]


def open_to_read(path: Path) -> int:
    """A descriptor of a file or folder. It does not wait for a pipe's writer, or a reload would never end.

    Raises `OSError` where the file cannot be opened.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        if not _ask:
            raise
        return _ask[0](path.absolute())


def read(path: Path) -> bytes:
    """All bytes of a file. Raises `OSError` where it cannot be read."""
    with open(open_to_read(path), "rb") as file:
        return file.read()


def names_of_files(folder: Path) -> list[str]:
    """The names in a folder that are no folders, in any order. Raises `OSError` where it cannot be listed."""
    descriptor = open_to_read(folder)
    try:
        with os.scandir(descriptor) as entries:
            return [entry.name for entry in entries if not entry.is_dir()]
    finally:
        os.close(descriptor)


def status(path: Path) -> os.stat_result:
    """The same as `os.stat`, also for files that only the opener may reach. Raises `OSError`."""
    try:
        return path.stat()
    except PermissionError:
        descriptor = open_to_read(path)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)
