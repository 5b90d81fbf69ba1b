"""The prefixes that a changed list would move."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from route_samples import keys

from route.intervals import EVERYTHING, intervals, prefix_of
from route.lists import Prefix, parse_prefix
from route.table import Layer, Move, RouteTable


def offloading(*prefixes: str, default: str = "vpn:hk") -> RouteTable:
    entries = [(*parse_prefix(text), line) for line, text in enumerate(prefixes, 1)]
    return RouteTable(offload=[Layer("tap1", "china.txt", entries)], default=default)


def test_the_same_table_moves_nothing() -> None:
    assert offloading("1.0.0.0/8").diff(offloading("1.0.0.0/8")) == []


def test_a_new_prefix_moves_from_the_default_node_and_a_lost_one_back() -> None:
    before, after = offloading("1.0.0.0/24", "5.0.0.0/24"), offloading("1.0.0.0/24", "2.0.0.0/24")
    assert before.diff(after) == [Move("2.0.0.0/24", "vpn:hk", "tap1"), Move("5.0.0.0/24", "tap1", "vpn:hk")]
    assert after.diff(before) == [Move("2.0.0.0/24", "tap1", "vpn:hk"), Move("5.0.0.0/24", "vpn:hk", "tap1")]


def test_the_same_addresses_in_other_prefixes_move_nothing() -> None:
    assert offloading("1.0.0.0/8").diff(offloading("1.0.0.0/9", "1.128.0.0/9")) == []
    assert offloading("1.0.0.0/8").diff(offloading("1.0.0.0/8", "1.7.0.0/16")) == []


def test_a_prefix_inside_one_that_moves_the_same_way_is_not_repeated() -> None:
    before = offloading("1.0.0.0/8", "1.2.0.0/16", "1.2.3.0/24", "9.0.0.0/8")
    assert before.diff(offloading("9.0.0.0/8")) == [Move("1.0.0.0/8", "tap1", "vpn:hk")]


def test_a_prefix_that_stays_inside_one_that_moves_is_not_told() -> None:
    assert offloading("1.2.0.0/16").diff(offloading("1.0.0.0/8")) == [Move("1.0.0.0/8", "vpn:hk", "tap1")]


def test_another_default_node_moves_the_rest() -> None:
    moves = offloading("1.0.0.0/8").diff(offloading("1.0.0.0/8", default="vpn:de"))
    assert moves == [Move("0.0.0.0/0", "vpn:hk", "vpn:de")]


def test_a_duplicate_line_and_a_private_entry_move_nothing() -> None:
    assert offloading("1.0.0.0/8").diff(offloading("1.0.0.0/8", "1.0.0.0/8", "10.0.0.0/8", "127.0.0.0/9")) == []


_lists = st.lists(st.tuples(keys, st.sampled_from(["vpn:a", "vpn:b"])), max_size=12)


def _table(entries: list[tuple[int, str]]) -> RouteTable:
    layers = [Layer(target, "f", [(*prefix_of(key), 1)]) for key, target in entries]
    return RouteTable(route_files=layers, default="vpn:hk", engine="plain")


@given(_lists, _lists)
def test_moves_say_exactly_what_changes(old: list[tuple[int, str]], new: list[tuple[int, str]]) -> None:
    before, after = _table(old), _table(new)
    moves = before.diff(after)
    prefixes = [parse_prefix(move.prefix) for move in moves]
    assert prefixes == sorted(set(prefixes))
    telling = set()
    edges = {address for prefix in map(parse_prefix, _built_in()) for address in (prefix.network, _behind(prefix))}
    cuts = {interval.start for interval in intervals({EVERYTHING} | {key for key, _ in old + new})} | edges
    for address in sorted(cuts - {1 << 32}):  # between two of them nothing changes, in either table
        was, becomes = before.target(address), after.target(address)
        around = [
            move for move, prefix in zip(moves, prefixes, strict=True) if prefix.network <= address < _behind(prefix)
        ]
        if was != becomes:  # the longest move around an address tells where it goes
            assert (was, becomes) == (around[-1].before, around[-1].after)
            telling.add(around[-1].prefix)
    assert telling == {move.prefix for move in moves}


def _behind(prefix: Prefix) -> int:
    return prefix.network + (1 << 32 - prefix.length)


def _built_in() -> list[str]:
    return [prefix for prefix, _ in RouteTable().entries()]
