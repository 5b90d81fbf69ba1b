"""The look of answers: one JSON document, or columns for people (coloured on a terminal, plain text in a pipe)."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import click

from bridge.control.protocol import Document
from bridgectl.ending import until_interrupted
from bridgectl.options import Options

__all__ = ["Columns", "Document", "Shown", "copies", "plain", "present", "print_shown", "rich_table", "show"]

_CLEAR = "\x1b[H\x1b[2J\x1b[3J"


class Columns(NamedTuple):
    """Rows under headings. A heading that begins with `>` stands over numbers, which are aligned at the right. `title`
    stands above; `empty` is shown in place of headings where there are no rows."""

    headings: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""
    empty: str = ""


Shown = Columns | str


def show(document: Document, *, as_json: bool, people: Callable[[Document], Iterable[Shown]]) -> None:
    """Print a document as JSON, or the columns and sentences that `people` makes of it."""
    if as_json:
        click.echo(json.dumps(document))
        return
    print_shown(people(document))


def print_shown(parts: Iterable[Shown]) -> None:
    """Print columns and sentences, with an empty line in front of all columns but the first."""
    for index, part in enumerate(parts):
        if isinstance(part, str):
            click.echo(part)
            continue
        if index:
            click.echo()
        if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
            _print_rich(part)
        else:
            click.echo(plain(part))


def copies(document: Document) -> Iterator[str]:
    """A line for each list in whose place the last good copy is used."""
    for one in document.get("lists", ()):
        if one["copy_of"] is not None:
            yield f"{one['file']}: last good copy of {one['copy_of']}"


def present(options: Options, ask: Callable[[], Document], people: Callable[[Document], Iterable[Shown]]) -> None:
    """Ask and show, once or every `--watch` seconds until Ctrl-C. A terminal is cleared before each answer, a pipe gets
    one after the other."""
    if options.watch_s is None:
        show(ask(), as_json=options.json, people=people)
        return
    repaint = sys.stdout.isatty() and not options.json
    with until_interrupted():
        while True:
            document = ask()
            if repaint:
                click.echo(_CLEAR, nl=False)
            show(document, as_json=options.json, people=people)
            if not repaint and not options.json:
                click.echo()
            sys.stdout.flush()
            time.sleep(options.watch_s)


def plain(table: Columns) -> str:
    """Aligned text: two spaces between columns, no space behind the last one."""
    if not table.rows and table.empty:
        return f"{table.title}: {table.empty}" if table.title else table.empty
    heads = [heading.lstrip(">") for heading in table.headings]
    right = [heading.startswith(">") for heading in table.headings]
    cells = [heads, *([cell_text(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    lines = [
        "  ".join(
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join([table.title, *lines] if table.title else lines)


def cell_text(cell: object) -> str:
    """The text of one cell: `-` for None, one decimal for fractions, `?` for each unprintable character."""
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:.1f}"
    text = str(cell)
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def rich_table(table: Columns) -> Any:
    """The `rich` table for a terminal."""
    from rich import box  # noqa: PLC0415 - only terminals pay for it
    from rich.table import Table as RichTable  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    shown = RichTable(
        title=Text(table.title) if table.title else None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        header_style="bold cyan",
    )
    for heading in table.headings:
        shown.add_column(heading.lstrip(">"), justify="right" if heading.startswith(">") else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(cell_text(cell)) for cell in row))
    return shown


def _print_rich(table: Columns) -> None:
    from rich.console import Console  # noqa: PLC0415 - only terminals pay for it

    if not table.rows and table.empty:
        click.echo(plain(table))
        return
    Console().print(rich_table(table))
