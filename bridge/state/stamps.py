"""The tunnel's TAI64N time stamps on disk: after a restart, recorded handshakes are refused and our own are accepted.

The file is a JSON object by public key in base64; each value has `received` and `sent` in hex. It holds no secret. It
is replaced whole, so that a crash leaves the old file or the new one. Where it cannot be written the gateway runs on
and logs this once.

A gateway that has become another user may not replace a file in a folder of root's. It opens both files before
(`hold`), and writes the new one first and the old one then: one of the two is whole at any time, and `read` takes it.
"""

from __future__ import annotations

import base64
import errno
import json
import logging
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tunnel.effects import Stamps
from tunnel.tai64n import STAMP_BYTES

log = logging.getLogger(__name__)

_LONGEST_BYTES = 16 << 20
"""Enough for a hundred thousand peers. A longer file is refused, or each start would take all memory."""


class StampFile:
    """The stamps of one gateway. Neither `path` nor its folder need exist."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._new = path.with_name(path.name + ".new")
        self._held: tuple[int, int] | None = None
        self._is_told = False

    def read(self) -> dict[bytes, Stamps]:
        """The stamps of an earlier run by public key; an empty dict where no file can be read."""
        try:
            return _read(self._path)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
                return _read(self._new)  # a write of the old file was cut off
            with suppress(OSError):
                if not self._path.stat().st_size:
                    return {}  # `hold` made it, nothing was written yet
            log.warning("%s: the tunnel's stamps cannot be read, they begin anew (%s)", self._path, error)
            return {}

    def prepare(self) -> None:
        """Make the folder, before confinement forbids it."""
        with suppress(OSError):  # `write` logs it
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)

    def hold(self, uid: int, gid: int) -> None:
        """Keep the file writable for the user that this process is about to become, with any owner of its folder. A
        failure is logged and raises nothing."""
        try:
            missing = [folder for folder in (self._path.parent, *self._path.parents[1:]) if not folder.is_dir()]
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if missing:
                os.chown(missing[0], uid, gid)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            held = [os.open(path, flags, 0o600) for path in (self._new, self._path)]
            for descriptor in held:
                known = os.fstat(descriptor)
                # A captured gateway may have linked the name to a file of root's.
                if not stat.S_ISREG(known.st_mode) or known.st_nlink > 1:
                    raise OSError(errno.EMLINK, "it has another name, or is no file")
                os.fchown(descriptor, uid, gid)
        except OSError as error:
            log.warning("%s cannot be kept for the user %d: %s", self._path, uid, error.strerror)
        else:
            self._held = held[0], held[1]

    def write(self, stamps: Mapping[bytes, Stamps]) -> None:
        """Replace the file. A failure is logged once and raises nothing."""
        text = json.dumps(
            {
                base64.b64encode(key).decode(): {"received": one.received.hex(), "sent": one.sent.hex()}
                for key, one in stamps.items()
            }
        )
        try:
            if self._held is not None:
                for descriptor in self._held:
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, text.encode(), 0)
                os.ftruncate(self._held[0], 0)
                return
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with open(os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
                file.write(text)
            self._new.replace(self._path)
        except OSError as error:
            if not self._is_told:
                log.warning(
                    "%s: %s; until it can be written, a recorded handshake may be taken once after a restart",
                    self._path,
                    error.strerror,
                )
            self._is_told = True
        else:
            self._is_told = False


def _read(path: Path) -> dict[bytes, Stamps]:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        text = file.read(_LONGEST_BYTES + 1)
    if len(text) > _LONGEST_BYTES:
        raise ValueError(f"it is longer than {_LONGEST_BYTES >> 20} MiB")
    found = json.loads(text)
    return {base64.b64decode(key, validate=True): _stamps(one) for key, one in found.items()}


def _stamps(one: Mapping[str, str]) -> Stamps:
    stamps = Stamps(bytes.fromhex(one["received"]), bytes.fromhex(one["sent"]))
    if {len(stamp) for stamp in stamps} != {STAMP_BYTES}:
        raise ValueError("a stamp has 12 bytes")
    return stamps
