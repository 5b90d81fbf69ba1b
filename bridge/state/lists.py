"""The last good copies of all lists, so that one file that was spoiled since does not close the LAN at a restart.

A timer downloads a list, and one day it brings an empty file or an error page. A running gateway refuses the reload; a
start takes the copy in its place (`bridge.config.lists`). The copies lie in one file beside the control socket. The
default one is below /run, which a reboot empties: copies of that gateway lie in /var/lib/tapbridge.

The file is opened while that is not forbidden yet and written in place: first a second file, then the file itself, so
that one of both is whole at any time. A check sum tells which. Where it cannot be written the copies live as long as
the gateway, and this is told once.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from zlib import crc32

from bridge.config.defaults import DEFAULT_SOCKET, DEFAULT_STATE
from bridge.config.lists import ListCopy

log = logging.getLogger(__name__)

MOST_BYTES: Final = 64 << 20
_MAGIC = b"tapbridge lists 1\n"
_CHECK_BYTES = 4


class ListCopies:
    """`copies`: by the absolute path of the list. `path`: of the file, None to keep the copies in memory alone; neither
    it nor its folder need exist. `wall_s`: seconds since 1970, the date of a copy."""

    def __init__(self, path: Path | None, wall_s: Callable[[], float] = time.time) -> None:
        self.copies: dict[str, ListCopy] = {}
        self._path = path
        self._wall_s = wall_s
        self._descriptors: list[int] = []
        if path is None:
            return
        self.copies = read_copies(path)
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            for one in (_second(path), path):
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                self._descriptors.append(os.open(one, flags, 0o600))
                if not stat.S_ISREG(os.fstat(self._descriptors[-1]).st_mode):
                    raise OSError(0, "it is no file")
        except OSError as error:
            self._give_up(error)

    def keep(self, texts: Mapping[str, bytes]) -> None:
        """These lists are in use now, by their absolute paths: keep them, and forget all others. A copy that is in use
        keeps its date."""
        now = int(self._wall_s())
        kept = {
            path: copy if (copy := self.copies.get(path)) is not None and copy.text == text else ListCopy(now, text)
            for path, text in texts.items()
        }
        if kept == self.copies:
            return
        self.copies = kept
        if not self._descriptors:
            return
        try:
            data = _packed(kept)
            for descriptor in self._descriptors:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, data, 0)
            os.ftruncate(self._descriptors[0], 0)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Give the descriptors back; the file stays."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
        if self._path is not None:
            with suppress(OSError):  # another user's folder: it stays, empty
                _second(self._path).unlink()

    def _give_up(self, error: OSError) -> None:
        log.info("%s: %s; a restart finds no copies of the lists", self._path, error.strerror)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []


def copies_path(socket_path: Path) -> Path:
    """`control.lists` for `control.sock`: beside it, or in /var/lib/tapbridge for the default socket."""
    folder = socket_path.absolute().parent
    if folder in (DEFAULT_SOCKET.parent, Path("/var") / DEFAULT_SOCKET.parent.relative_to("/")):
        folder = DEFAULT_STATE.parent
    return folder / (socket_path.name.removesuffix(".sock") + ".lists")


def read_copies(path: Path) -> dict[str, ListCopy]:
    """The copies in a file; none where it cannot be read, or is torn and the second file too."""
    for one in (path, _second(path)):
        try:
            with open(os.open(one, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                return _unpacked(file.read(MOST_BYTES + 1))
        except (OSError, ValueError, TypeError):
            continue
    return {}


def _second(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _packed(copies: Mapping[str, ListCopy]) -> bytes:
    """Raises `OSError` where the lists are too long to be kept."""
    index = [[path, copy.taken_s, len(copy.text)] for path, copy in copies.items()]
    body = b"".join([_MAGIC, json.dumps(index).encode(), b"\n", *(copy.text for copy in copies.values())])
    if len(body) >= MOST_BYTES:
        raise OSError(0, f"they are longer than {MOST_BYTES >> 20} MiB")
    return body + crc32(body).to_bytes(_CHECK_BYTES, "big")


def _unpacked(data: bytes) -> dict[str, ListCopy]:
    body = data[:-_CHECK_BYTES]
    if not body.startswith(_MAGIC) or crc32(body).to_bytes(_CHECK_BYTES, "big") != data[-_CHECK_BYTES:]:
        raise ValueError("it is torn")
    line, _, texts = body[len(_MAGIC) :].partition(b"\n")
    copies: dict[str, ListCopy] = {}
    at = 0
    for path, taken_s, size in json.loads(line):
        copies[path] = ListCopy(taken_s, texts[at : at + size])
        at += size
    return copies
