"""A configuration file as written.

Values that are wrong by themselves are left out (`leave_out`), so that the remaining ones can still be checked. A
*path* is a tuple of keys and indices into `TomlFile.remaining`; `as_written` gives the indices that the file has.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bridge.config.errors import ConfigError
from bridge.config.toml_lines import BARE_KEY, KeyLines, KeyPath


class TomlFile:
    """One TOML file. `remaining`: its values without those left out. Raises `ConfigError` where the text is no TOML."""

    def __init__(self, text: str, path: Path) -> None:
        self.path = path
        self.remaining: dict[str, Any] = _parsed(text, path)
        self._written = self.remaining
        self._left_out: set[KeyPath] = set()
        self._kept: dict[KeyPath, list[int]] = {}  # of lists: the indices as written of the items that remain
        self._lines = KeyLines(text)

    def has(self, *keys: str) -> bool:
        """True where the file has a table or key, usable or not."""
        return self.written(*keys) is not None

    def written(self, *keys: str) -> Any:
        """The value of a table or key as the file has it, usable or not; None where it has none."""
        value: Any = self._written
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                return None
            value = value[key]
        return value

    def line(self, path: KeyPath) -> int:
        """The line of a table, key or item; where the file does not have it, that of the table around it."""
        return self._lines.line(self.as_written(path))

    def as_written(self, path: KeyPath) -> KeyPath:
        """The path with the indices of the file."""
        written: KeyPath = ()
        for key in path:
            kept = self._kept.get(written)
            written += (kept[key],) if isinstance(key, int) and kept is not None else (key,)
        return written

    def leave_out(self, paths: Iterable[KeyPath]) -> None:
        """Take tables, keys and items out of `remaining`. Each path must lead to one of its values."""
        self._left_out |= {self.as_written(path) for path in paths}
        self._kept = {}
        self.remaining = self._without_left_out(self._written, ())

    def _without_left_out(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {
                key: self._without_left_out(item, (*path, key))
                for key, item in value.items()
                if (*path, key) not in self._left_out
            }
        if isinstance(value, list):
            kept = [index for index in range(len(value)) if (*path, index) not in self._left_out]
            self._kept[path] = kept
            return [self._without_left_out(value[index], (*path, index)) for index in kept]
        return value


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what = str(error)
        found = re.search(r" \(at line (\d+), column \d+\)$", what)
        if found:
            line, what = int(found[1]), what[: found.start()]
        else:  # "at end of document"
            line, what = text.count("\n") + 1, what.partition(" (at ")[0]
        right = "write [table], key = value, # comment"
        raise ConfigError([f"{path}:{line}: this is no TOML ({what}), {right}"]) from None
    except RecursionError:
        raise ConfigError([f"{path}:1: values are nested too deep, no key takes a list inside a list"]) from None


def dotted(path: KeyPath) -> str:
    """A path as TOML writes it: `alias.forward[0].inside`, `tap0.arp."192.168.200.9"`. Indices count from 0."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += ("." if text else "") + (key if BARE_KEY.fullmatch(key) else f'"{key}"')
    return text
