"""Which rows a test shows is read off its name and its docstring, and where off its parameters and its scenarios."""

from __future__ import annotations

import pytest

from alias.types import Egress
from trials.conformance.checklist import BOTH, ROWS
from trials.conformance.table import ShownRows, counts, egress_of, rows_of, table


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


def test_every_row_has_levels_and_those_without_a_second_egress_a_reason() -> None:
    for row in ROWS.values():
        assert set(row.level.split("/")) <= set("MSDY")
        assert row.egresses == (frozenset() if row.why_not_both or row.comes_with else BOTH)
    assert {row: ROWS[row].strictest for row in ("U5", "G2", "R2", "G15", "U5a")} == {
        "U5": "M",
        "G2": "M",
        "R2": "S",
        "G15": "M",
        "U5a": "Y",
    }
    assert ROWS["N1"].comes_with == "a DNS companion"


def test_the_egress_of_a_test_is_its_parameter_or_what_its_scenarios_moved() -> None:
    assert egress_of({"egress": "V", "size": 9}) == {"V"}
    assert egress_of({"egress": Egress.TAP1}) == {"O"}
    assert egress_of({"egress": "tap0"}) is None
    assert egress_of({"size": 9}) is None
    assert ShownRows({"G3"}, None, moved={"O", "V"}).where == BOTH
    assert ShownRows({"U1"}, frozenset("O"), moved={"O", "V"}).where == {"O"}


def test_a_row_that_was_shown_on_one_egress_only_is_told_and_counted() -> None:
    findings = {
        finding.row.id: finding
        for finding in table(
            {
                "a[O]": ShownRows({"U1", "U2"}, frozenset("O"), passed=True),
                "a[V]": ShownRows({"U1"}, frozenset("V"), passed=True),
                "b[V]": ShownRows({"U3"}, frozenset("V"), failed=True),
                "c": ShownRows({"A1"}, None, passed=True),
                "d": ShownRows({"G3"}, None, passed=True),
                "e": ShownRows({"U8"}, frozenset("V")),  # skipped
            }
        )
    }
    assert {row: findings[row].words for row in ("U1", "U2", "U3", "A1", "G3", "U8", "N1", "U4")} == {
        "U1": "held",
        "U2": "held on tap1 only",
        "U3": "failing",
        "A1": "held",
        "G3": "held on no egress only",
        "U8": "not yet",
        "N1": "comes with a DNS companion",
        "U4": "not yet",
    }
    assert [findings[row].egresses for row in ("U1", "U2", "A1")] == ["tap1 vpn", "tap1", "-"]
    assert findings["U1"].test == "a"
    first, second, *rest = counts(list(findings.values()))
    assert first.startswith("4 held (M 3, S 1, D 0, Y 0), 1 failing, ")
    assert second == "1 of them shown on both egresses, 2 on one only: U2 G3"
    assert any(line.startswith("32 come with a DNS companion: N1 N2 ") for line in rest)
