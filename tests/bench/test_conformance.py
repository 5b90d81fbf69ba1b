"""Which rows a test shows is read off its name and its docstring."""

from __future__ import annotations

import pytest

from bench.conformance import KNOWN, rows_of


@pytest.mark.parametrize(
    ("name", "docstring", "rows"),
    [
        ("test_u3a_the_class_is_kept[O]", None, {"U3a"}),
        ("test_g7_g9_a_plain_error", None, {"G7", "G9"}),
        ("test_it", "T5: the timers.\n\nU1: not this one.", {"T5"}),
        ("test_it", "T5, T5a and R2: the timers.", {"T5", "T5a", "R2"}),
        ("test_a_word_and_another", "A sentence about U1.", set()),
    ],
    ids=range(5),  # names of their own would count as evidence for the rows that they mention
)
def test_the_rows_of_a_test(name: str, docstring: str | None, rows: set[str]) -> None:
    assert rows_of(name, docstring) == rows


def test_no_row_is_listed_twice() -> None:
    assert len(KNOWN) == len(set(KNOWN))
