"""Every implementation of the flow table gives the same bytes, verdicts, numbers and counts, whatever it is told."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.plain import PlainTable
from tests.compiled import compiled_table
from trials.fuzz.hostile import Failure
from trials.fuzz.targets.flow import table_steps

# Clocks at which what is stored in seconds or milliseconds comes round, and others.
STARTS = st.sampled_from([0, 1, (1 << 16) * 10**9 - 5 * 10**9, (1 << 32) * 10**6 - 5 * 10**9]) | st.integers(0, 1 << 60)


@given(seed=st.integers(0, 1 << 32), limit=st.sampled_from([1, 3, 50]), steps=st.integers(1, 200), start=STARTS)
def test_the_compiled_table_and_its_twin_agree(seed: int, limit: int, steps: int, start: int) -> None:
    tables = [PlainTable(limit), compiled_table()(limit, seed)]
    table_steps(tables, random.Random(seed), steps, start)


@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 200), start=STARTS)
def test_the_seed_of_the_hash_changes_nothing(seed: int, steps: int, start: int) -> None:
    tables = [compiled_table()(20, key) for key in (0, 1, seed)]
    table_steps(tables, random.Random(seed), steps, start)


def test_a_difference_is_found() -> None:
    class Forgetful(PlainTable):
        def outdate(self) -> None:
            """Nothing."""

    with pytest.raises(Failure, match="forward"):
        table_steps([PlainTable(50), Forgetful(50)], random.Random(1), 3000)
