"""The house as a reader meets it: no circle of imports, one class for one name, rooms and files of a size that a person
can hold, and docstrings that begin with the thing that acts.

The floors themselves are import-linter's business (`make check`). Sizes are counted in lines of the file as it stands.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parent.parent
TOPS: tuple[str, ...] = tuple(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
)
MOST_MODULES = 20
WIDE_ROOMS = {"bridgectl": 40}
"""`bridgectl` has a small module for each command, and each of them is found by the name of its command."""
MOST_LINES = 600
MOST_LINES_IN_A_FUNCTION = 60
RIDDLES = re.compile(r"(?:What|Whatever|Who|Whoever|Whom|Whose|That which)\b")


@cache
def sources(*tops: str) -> dict[Path, ast.Module]:
    """Every module below these folders by its path from the root, parsed."""
    paths = (path for top in tops for path in sorted((ROOT / top).rglob("*.py")))
    return {path.relative_to(ROOT): ast.parse(path.read_text()) for path in paths}


def rooms() -> dict[str, list[Path]]:
    """The modules of each package, `__init__` and `__main__` left out: they only open it and start it."""
    found: dict[str, list[Path]] = {}
    for path in sorted(path for top in TOPS for path in (ROOT / top).rglob("*.py*")):
        if path.suffix in {".py", ".pyx"}:
            modules = found.setdefault(".".join(path.parent.relative_to(ROOT).parts), [])
            if path.stem not in {"__init__", "__main__"}:
                modules.append(path)
    return found


def public(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The name and docstring of a module and of everything public in it."""

    def below(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
        assert isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        yield name, ast.get_docstring(node) or ""
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and child.name[0] != "_":
                yield from below(child, f"{name}.{child.name}")

    yield from below(tree, "")


def test_imports_have_no_circle() -> None:
    graph = grimp.build_graph(*TOPS, cache_dir=None)
    circles = {
        frozenset((graph.find_upstream_modules(name) & graph.find_downstream_modules(name)) | {name})
        for name in graph.modules
        if name in graph.find_upstream_modules(name)
    }
    assert [sorted(circle) for circle in circles] == []


def test_a_class_has_a_name_of_its_own() -> None:
    places = defaultdict(list)
    for path, tree in sources(*TOPS).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path}:{node.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_a_room_has_so_few_modules_that_a_reader_can_keep_them_apart() -> None:
    sizes = {room: len(modules) for room, modules in rooms().items()}
    assert {room: size for room, size in sizes.items() if size > WIDE_ROOMS.get(room, MOST_MODULES)} == {}


def test_a_room_opens_with_its_duty() -> None:
    def opens(room: Path) -> bool:
        return (room / "README.md").is_file() or bool(ast.get_docstring(ast.parse((room / "__init__.py").read_text())))

    assert [room for room in rooms() if not opens(ROOT.joinpath(*room.split(".")))] == []


def test_a_long_file_says_why_it_is_one() -> None:
    def is_long(path: Path) -> bool:
        return (ROOT / path).read_text().count("\n") > MOST_LINES

    silent = {
        str(path)
        for path, tree in sources(*TOPS, "tests", "scripts").items()
        if is_long(path) and f"{MOST_LINES} lines" not in (ast.get_docstring(tree) or "")
    }
    assert silent == set()


def test_no_two_files_of_tests_share_a_name() -> None:
    """The folders of tests are no packages: pytest stops at the second file of a name."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_a_function_fits_on_a_page() -> None:
    long = {
        f"{path}:{node.name}": lines
        for path, tree in sources(*TOPS).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
        if (lines := node.end_lineno - node.lineno + 1) > MOST_LINES_IN_A_FUNCTION
    }
    assert long == {}


@pytest.mark.parametrize("top", [*TOPS, "scripts", "tests"])
def test_a_public_docstring_begins_with_the_thing_that_acts(top: str) -> None:
    riddles = [
        f"{path}{name}: {text.splitlines()[0]}"
        for path, tree in sources(top).items()
        for name, text in public(tree)
        if RIDDLES.match(text)
    ]
    assert riddles == []
