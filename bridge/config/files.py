"""Reading the operator's files: configuration, lists, keys. Once the gateway has become another user some of them are
out of its reach, and whoever was told by `ask` opens them in its place.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

Opener = Callable[[Path], int]
"""Gives a descriptor for reading a file, or for listing a folder; `OSError` where it cannot be had."""

_ask: list[Opener] = []


def ask(opener: Opener | None) -> None:
    """Let `opener` be asked for what we may not open ourselves, in the whole process; None: nobody is."""
    _ask[:] = [] if opener is None else [opener]


def open_to_read(path: Path) -> int:
    """A descriptor of a file or folder, as `os.open`. A pipe is not waited for: a reload would never end."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        if not _ask:
            raise
        return _ask[0](path.absolute())


def read(path: Path) -> bytes:
    """All bytes of a file; `OSError` where it cannot be read."""
    with open(open_to_read(path), "rb") as file:
        return file.read()


def names_of_files(folder: Path) -> list[str]:
    """What lies in a folder and is no folder itself, in no order; `OSError` where it cannot be listed."""
    descriptor = open_to_read(folder)
    try:
        with os.scandir(descriptor) as entries:
            return [entry.name for entry in entries if not entry.is_dir()]
    finally:
        os.close(descriptor)


def status(path: Path) -> os.stat_result:
    """As `os.stat`, of files that are read and not waited for."""
    try:
        return path.stat()
    except PermissionError:
        descriptor = open_to_read(path)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)
