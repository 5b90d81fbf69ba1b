"""docs/checklist.md explains each row that a test names, so that the tests can be read with this repository alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from trials.conformance.checklist import PAGE, ROWS

TESTS = Path(__file__).resolve().parents[2]
ROW = re.compile(r"\b[A-Z]\d{1,2}[a-d]?\b")
LETTERS = {name[0] for name in ROWS}
ROW_IN_NAME = re.compile(rf"(?<=_)[{''.join(LETTERS).lower()}]\d{{1,2}}[a-d]?(?=_)")


def named(tree: ast.Module) -> Iterator[str]:
    """The rows that a file of tests names, in docstrings and in names of tests."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from (word for word in ROW.findall(ast.get_docstring(node) or "") if word[0] in LETTERS)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield from (word.capitalize() for word in ROW_IN_NAME.findall(node.name))


def test_each_row_that_a_test_names_stands_on_the_page() -> None:
    rows = {row for path in TESTS.rglob("*.py") for row in named(ast.parse(path.read_text()))}
    assert len(rows) > 150
    assert rows - set(ROWS) == set()


def test_a_row_has_one_line_with_words() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| [A-Z]\d", line)]
    assert len(lines) == len(ROWS)
    assert all(len(line.split("|")[3].split()) > 2 for line in lines)
