"""The error that refuses a configuration with all its mistakes at once."""

from __future__ import annotations

import re
from collections.abc import Iterable

# 32 bytes in base64, as `wg` writes them, or in hex; a path may have lost some digits, and a message may be cut.
_KEY = re.compile(r"[A-Za-z0-9+/]{40,43}=|[0-9A-Fa-f]{48,64}")


class ConfigError(Exception):
    """The configuration cannot be used. `errors`: one line `FILE:LINE: what is wrong, what is right` for each mistake.

    Characters that do not print are shown as question marks, and text that looks like a key as `(a key)`.
    """

    def __init__(self, errors: Iterable[str]) -> None:
        self.errors = ["".join(c if c.isprintable() else "?" for c in without_keys(error)) for error in errors]
        super().__init__("\n".join(self.errors))


def without_keys(text: str) -> str:
    """A message with `(a key)` for any text that looks like a key, which must not get into a log."""
    return _KEY.sub("(a key)", text)
