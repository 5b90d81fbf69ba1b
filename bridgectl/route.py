"""`bridgectl route`: the routes of destinations, and the moves that changed lists would make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from bridge.control.client import ControlError, NobodyListens, request
from bridgectl.daemon import ask_or_work_out, socket_path
from bridgectl.errors import NotRunning, with_code
from bridgectl.options import DEFAULT_CONFIG, Options, address, shared
from bridgectl.output import Columns, Document, Shown, copies, present


@click.group()
def command() -> None:
    """Routes of destinations: show, get, diff. With -c they need no daemon."""


@command.command("show")
@shared(watch=True)
def show_targets(options: Options) -> None:
    """Show the size of each target (also the bare word `route`).

    PREFIXES counts the prefixes that name it, ADDRESSES the addresses for which one of these is the longest.
    """
    present(options, lambda: ask_or_work_out(options, "route.show"), _targets)


def _targets(document: Document) -> Iterator[Shown]:
    yield from copies(document)
    yield Columns(
        ("TARGET", ">PREFIXES", ">ADDRESSES"),
        [(row["target"], row["prefixes"], row["addresses"]) for row in document["targets"]],
    )


@command.command()
@click.argument("ip", callback=address)
@shared(watch=True)
def get(options: Options, ip: str) -> None:
    """Show the target of one address, and the line that decides it."""
    present(options, lambda: ask_or_work_out(options, "route.get", {"ip": ip}), _decision)


def _decision(document: Document) -> Iterator[Shown]:
    yield f"{document['destination']} -> {document['target']}  by {document['prefix']}  ({document['source']})"
    if "why" in document:
        yield document["why"]


@command.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@shared(watch=True)
def diff(options: Options, files: tuple[Path, ...]) -> None:
    """Show the prefixes and live flows that changed lists would move.

    A FILE takes the place of the offload list or route file of the same name; the name of a peer means that node's
    route file. Files of other names together take the place of all offload lists.
    """
    present(options, lambda: _moves(options, files), moved)


def _moves(options: Options, files: tuple[Path, ...]) -> Document:
    from bridgectl import changed  # noqa: PLC0415 - pydantic and the routing table

    socket = socket_path(options)
    try:
        table = request(socket, "route.table")
        flows: list[dict[str, Any]] = request(socket, "flows")["flows"]
    except NobodyListens as error:
        if options.config is None:
            raise NotRunning(f"the daemon is not running: {error}") from error
        click.echo(f"The daemon is not running: compared with {options.config}.", err=True)
        return changed.moves_of_configuration(options.config, files)
    except ControlError as error:
        raise with_code(error.code, error.message) from error
    config = options.config or Path(table.get("config") or DEFAULT_CONFIG)
    return changed.moves_of_daemon(config, files, table, flows)


def moved(document: Document) -> Iterator[Shown]:
    """The table of `route diff` and `reload --dry-run`."""
    yield Columns(
        ("PREFIX", "FROM", "TO", ">FLOWS"),
        [(move["prefix"], move["from"], move["to"], move["flows"]) for move in document["moves"]],
        empty="nothing moves",
    )
