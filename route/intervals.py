"""Prefixes in the address space: which prefix is the longest one where.

A *key* is a prefix in one integer, `network << 6 | length`. Sorted keys come parents first, so one pass with a stack of
the open prefixes is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from route.lists import Prefix

EVERYTHING = 0  # the key of 0.0.0.0/0


def key_of(network: int, length: int) -> int:
    """The key of a prefix."""
    return network << 6 | length


def prefix_of(key: int) -> Prefix:
    """The prefix of a key."""
    return Prefix(key >> 6, key & 63)


def end_of(key: int) -> int:
    """The address behind the last one of a prefix; 2^32 at the end of the address space."""
    return (key >> 6) + (1 << 32 - (key & 63))


class Interval(NamedTuple):
    """Addresses from `start` up to and without `end`, for which the prefix `key` is the longest."""

    start: int
    end: int
    key: int


def intervals(keys: Iterable[int]) -> Iterator[Interval]:
    """The whole address space as intervals in order, without gaps. The keys are unique, and `EVERYTHING` is one of
    them."""
    open_keys = [EVERYTHING]
    at = 0
    for key in sorted(keys):
        network = key >> 6
        while (end := end_of(open_keys[-1])) <= network:
            if at < end:
                yield Interval(at, end, open_keys[-1])
                at = end
            open_keys.pop()
        if at < network:
            yield Interval(at, network, open_keys[-1])
            at = network
        if key != EVERYTHING:
            open_keys.append(key)
    while open_keys:
        end = end_of(open_keys[-1])
        if at < end:
            yield Interval(at, end, open_keys[-1])
            at = end
        open_keys.pop()


class Nested(NamedTuple):
    """A prefix among others. `parent`: the key of the next shorter prefix around it, its own for `EVERYTHING`.
    `decides`: False where longer prefixes cover it completely."""

    key: int
    parent: int
    decides: bool


def nested(keys: Iterable[int]) -> list[Nested]:
    """Every prefix with its parent, parents first. The keys are unique, and `EVERYTHING` is one of them."""
    ordered = sorted(keys)
    deciding = {interval.key for interval in intervals(ordered)}
    found: list[Nested] = []
    open_keys = [EVERYTHING]
    for key in ordered:
        while end_of(open_keys[-1]) <= key >> 6:
            open_keys.pop()
        found.append(Nested(key, open_keys[-1], key in deciding))
        open_keys.append(key)
    return found
