"""G26: the longest prefix wins, whatever the engine; a brute-force search is the oracle of both."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from route_samples import ENGINES, addresses, brute_force, key_at, tables

from route.engine import Engine, lookup_of
from route.intervals import EVERYTHING, end_of, intervals, nested


@given(tables, st.lists(addresses, min_size=1, max_size=30))
def test_every_engine_finds_the_longest_prefix(values: dict[int, str], random_addresses: list[int]) -> None:
    probes = {*random_addresses, 0, 2**32 - 1}
    for key in values:  # both sides of every boundary
        probes |= {key >> 6, end_of(key) - 1, max((key >> 6) - 1, 0), min(end_of(key), 2**32 - 1)}
    lookups = [lookup_of(values, name) for name in ENGINES]
    for address in probes:
        expected = brute_force(values, address)
        assert [lookup(address) for lookup in lookups] == [expected] * len(lookups), hex(address)


@pytest.mark.parametrize("name", ENGINES)
def test_ten_thousand_random_prefixes_agree_with_brute_force(name: Engine) -> None:
    rng = random.Random(26)
    values = {EVERYTHING: "default"}
    while len(values) < 10_000:
        length = rng.choice([8, 12, 16, 16, 20, 22, 24, 24, 24, 28, 32])
        values[key_at(rng.getrandbits(32), length)] = rng.choice("abcdef")
    lookup = lookup_of(values, name)
    for _ in range(100):
        key = rng.choice(list(values))
        for address in (rng.getrandbits(32), rng.randrange(key >> 6, end_of(key))):
            assert lookup(address) == brute_force(values, address), hex(address)


@given(tables)
def test_intervals_cover_the_address_space_once_and_in_order(values: dict[int, str]) -> None:
    pieces = list(intervals(values))
    assert pieces[0].start == 0
    assert pieces[-1].end == 1 << 32
    assert all(piece.start < piece.end for piece in pieces)
    assert all(before.end == after.start for before, after in pairwise(pieces))
    for piece in pieces:
        for address in (piece.start, piece.end - 1):
            assert values[piece.key] == brute_force(values, address)


@given(tables)
def test_the_parent_of_a_prefix_is_the_longest_one_around_it(values: dict[int, str]) -> None:
    for key, parent, decides in nested(values):
        around = [
            other
            for other in values
            if other & 63 < key & 63 and other >> 6 <= key >> 6 and end_of(key) <= end_of(other)
        ]
        assert parent == (max(around, key=lambda other: other & 63) if around else EVERYTHING)
        assert decides == any(piece.key == key for piece in intervals(values))
