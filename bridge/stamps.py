"""The tunnel's TAI64N stamps on disk: what keeps recorded handshakes out, and ours welcome, after a restart.

A JSON object by public key in base64, each with `received` and `sent` in hex; nothing in it is secret. It is replaced
whole, so that a crash leaves the old or the new one. Where it cannot be written the gateway runs on, and says so once.
"""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from tunnel.effects import Stamps
from tunnel.tai64n import STAMP_BYTES

log = logging.getLogger(__name__)


class StampFile:
    """`path` need not exist, nor its folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_told = False

    def read(self) -> dict[bytes, Stamps]:
        """What an earlier run wrote; nothing where there is none, or none that can be read."""
        try:
            found = json.loads(self._path.read_bytes())
            return {base64.b64decode(key, validate=True): _stamps(one) for key, one in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            log.warning("%s: the tunnel's stamps cannot be read, they begin anew (%s)", self._path, error)
            return {}

    def write(self, stamps: Mapping[bytes, Stamps]) -> None:
        """Replace the file."""
        text = json.dumps(
            {
                base64.b64encode(key).decode(): {"received": one.received.hex(), "sent": one.sent.hex()}
                for key, one in stamps.items()
            }
        )
        new = self._path.with_name(self._path.name + ".new")
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
                file.write(text)
            new.replace(self._path)
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


def _stamps(one: Mapping[str, str]) -> Stamps:
    stamps = Stamps(bytes.fromhex(one["received"]), bytes.fromhex(one["sent"]))
    if {len(stamp) for stamp in stamps} != {STAMP_BYTES}:
        raise ValueError("a stamp has 12 bytes")
    return stamps
