"""`bridgectl demo`: the whole topology in network namespaces on this machine."""

from __future__ import annotations

import importlib

import click


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Build the whole topology in namespaces of this machine and pass real traffic through it."""
    ctx.exit(importlib.import_module("lab.demo").main(list(arguments)) or 0)
