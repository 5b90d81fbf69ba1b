"""Shared by the tests of this room: the engines of the machine, random tables, a search that cannot be wrong."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st

from route import engine
from route.engine import Engine
from route.intervals import EVERYTHING, key_of

ENGINES: list[Engine] = (
    ["pytricia", "plain"] if engine.BEST == "pytricia" else ["plain"]  # where pytricia cannot be built there is one
)


def brute_force(values: Mapping[int, str], address: int) -> str:
    holding = [key for key in values if key >> 6 == address >> 32 - (key & 63) << 32 - (key & 63)]
    return values[max(holding, key=lambda key: key & 63)]


def key_at(address: int, length: int) -> int:
    return key_of(address >> 32 - length << 32 - length, length)


# Few distinct upper bits, so that prefixes nest and touch; the far ends of the address space are among them.
addresses = st.builds(
    lambda high, low: high << 24 | low,
    st.sampled_from([0, 1, 10, 127, 128, 255]),
    st.one_of(st.sampled_from([0, 1, 0x7FFFFF, 0x800000, 0xFFFFFF]), st.integers(0, 2**24 - 1)),
)
keys = st.builds(key_at, addresses, st.integers(0, 32))
tables = st.dictionaries(keys, st.sampled_from(["a", "b", "c"]), max_size=30).map(
    lambda values: {EVERYTHING: "default"} | values
)
