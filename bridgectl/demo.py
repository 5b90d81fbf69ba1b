"""`bridgectl demo`: the whole topology in network namespaces on this machine."""

from __future__ import annotations

import importlib

import click


@click.command()
@click.option(
    "--megabytes", type=click.IntRange(min=1), default=100, show_default=True, help="The length of each TCP transfer."
)
@click.option(
    "--peer",
    type=click.Choice(["ours", "wireguard-go"]),
    default="ours",
    show_default=True,
    help="The tunnel's other end.",
)
@click.option("--replay", is_flag=True, help="No devices: the same flows as captures.")
@click.pass_context
def command(ctx: click.Context, megabytes: int, peer: str, replay: bool) -> None:
    """Build the whole topology in namespaces and send real traffic through it."""
    arguments = ["--megabytes", str(megabytes), "--peer", peer, *(["--replay"] if replay else [])]
    ctx.exit(importlib.import_module("lab.demo").main(arguments))
