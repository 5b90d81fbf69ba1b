"""Which flow table, which store of links and which burst loop the daemon takes."""

from __future__ import annotations

import random
from collections import deque

import pytest

from alias.draws import Draws
from alias.plain import PlainStore
from alias.types import AliasSettings
from bridge.daemon.implementation import may_share, open_bursts, open_table, store_maker
from bridge.ports.bursts import PlainBursts
from flow.plain import PlainTable
from flow.table import ENTRIES, MOST_ENTRIES
from tests.compiled import compiled, compiled_bursts, compiled_table

RNG = random.Random(1)


def test_where_it_was_compiled_it_is_taken_and_threads_may_share_it() -> None:
    wanted, moves = compiled_table(), compiled_bursts()
    table = open_table(RNG, 64, {})
    assert isinstance(table, wanted)
    assert isinstance(open_bursts(table), moves)
    assert may_share(table)


def test_the_links_are_kept_by_the_store_of_the_tables_kind() -> None:
    wanted = compiled("alias.compiled.store", "CompiledStore")
    for table, kind in ((compiled_table()(64), wanted), (PlainTable(64), PlainStore)):
        store = store_maker(RNG, table)(AliasSettings(), Draws(RNG), deque())
        assert isinstance(store, kind)
        assert store.compiled == table.compiled


def test_the_environment_forces_the_plain_twins_which_no_threads_share() -> None:
    table = open_table(RNG, 64, {"TAPBRIDGE_FAST": "0"})
    assert isinstance(table, PlainTable)
    assert isinstance(open_bursts(table), PlainBursts)
    assert not may_share(table)


@pytest.mark.parametrize("environment", [{}, {"TAPBRIDGE_FAST": "0"}], ids=["best", "plain"])
def test_more_links_than_a_table_has_entries_for_are_no_mistake(environment: dict[str, str]) -> None:
    assert open_table(RNG, environment=environment).limit == ENTRIES
    assert open_table(RNG, 4 * MOST_ENTRIES, environment).limit == MOST_ENTRIES
