"""An operator's mistakes, told all at once."""

from __future__ import annotations

from collections.abc import Iterable


class ConfigError(Exception):
    """The configuration cannot be used. `faults`: one `FILE:LINE: what is wrong, what is right` each, a line each
    whatever the files hold: characters that do not print are shown as question marks."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = ["".join(c if c.isprintable() else "?" for c in fault) for fault in faults]
        super().__init__("\n".join(self.faults))
