"""The choice of the look-up: pytricia where it can be imported, else plain Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from route.intervals import prefix_of
from route.plain import PlainLookup

try:
    from pytricia import PyTricia
except ImportError:  # no wheel for this machine and no compiler: PlainLookup gives the same answers
    PyTricia = None

Engine = Literal["pytricia", "plain"]
Lookup = Callable[[int], str]

BEST: Engine = "plain" if PyTricia is None else "pytricia"


class Prefixes(NamedTuple):
    """A look-up that can change. `lookup`: from an address (32-bit integer) to the value of the longest prefix that
    holds it. `change`: sets new values by key, None for removed keys; `lookup` stays the same function."""

    lookup: Lookup
    change: Callable[[Mapping[int, str | None]], None]


def prefixes_of(values: Mapping[int, str], engine: Engine = BEST) -> Prefixes:
    """The look-up of `values` by key (`route.intervals`). `EVERYTHING` must be a key, so that every look-up has an
    answer."""
    if engine == "plain":
        plain = PlainLookup(values)
        return Prefixes(plain, plain.change)
    trie = PyTricia(32)
    insert = trie.insert
    for key, value in values.items():
        insert(key >> 6, key & 63, value)
    trie.freeze()

    def change(changed: Mapping[int, str | None]) -> None:
        trie.thaw()
        for key, value in changed.items():
            if value is None:
                trie.delete(str(prefix_of(key)))
            else:
                insert(key >> 6, key & 63, value)
        trie.freeze()

    return Prefixes(trie.get, change)


def lookup_of(values: Mapping[int, str], engine: Engine = BEST) -> Lookup:
    """The look-up alone, for values that never change."""
    return prefixes_of(values, engine).lookup
