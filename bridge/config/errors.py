"""The error that refuses a configuration with all its mistakes at once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

# 32 bytes in base64, as `wg` writes them, or in hex; a path may have lost some digits, and a message may be cut.
_KEY = re.compile(r"[A-Za-z0-9+/]{40,43}=|[0-9A-Fa-f]{48,64}")


MOST_ERRORS: Final = 100


class ConfigError(Exception):
    """The configuration cannot be used. `errors`: one line `FILE:LINE: what is wrong, what is right` for each mistake.

    Of more than `MOST_ERRORS` mistakes the first ones are told, and the number of the rest: a program may have written
    the files, and be wrong in every line. Characters that do not print are shown as question marks, and text that looks
    like a key as `(a key)`.
    """

    def __init__(self, errors: Iterable[str]) -> None:
        told = list(errors)
        rest = len(told) - MOST_ERRORS
        if rest > 0:
            told[MOST_ERRORS:] = [f"and {rest} more mistakes: mend these, and look again"]
        self.errors = ["".join(c if c.isprintable() else "?" for c in without_keys(error)) for error in told]
        super().__init__("\n".join(self.errors))


def without_keys(text: str) -> str:
    """A message with `(a key)` for any text that looks like a key, which must not get into a log."""
    return _KEY.sub("(a key)", text)
