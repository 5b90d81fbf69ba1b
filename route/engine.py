"""The one place that chooses how addresses are looked up: pytricia where it can be imported, else plain Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from route.plain import PlainLookup

try:
    from pytricia import PyTricia
except ImportError:  # no wheel for this machine and no compiler: PlainLookup gives the same answers
    PyTricia = None

Engine = Literal["pytricia", "plain"]
Lookup = Callable[[int], str]

BEST: Engine = "plain" if PyTricia is None else "pytricia"


def lookup_of(values: Mapping[int, str], engine: Engine = BEST) -> Lookup:
    """A function from an address (32-bit integer) to the value of the longest prefix that holds it.

    `values`: by key (see `route.intervals`); `EVERYTHING` must be among them, so every look-up has an answer.
    """
    if engine == "plain":
        return PlainLookup(values)
    trie = PyTricia(32)
    insert = trie.insert
    for key, value in values.items():
        insert(key >> 6, key & 63, value)
    trie.freeze()
    lookup: Lookup = trie.get
    return lookup
