"""`bridgectl flows`: the flow table."""

from __future__ import annotations

from collections.abc import Iterator

import click

from bridgectl.daemon import ask
from bridgectl.options import Options, shared
from bridgectl.output import Columns, Document, Shown, present


@click.command()
@shared(watch=True)
def command(options: Options) -> None:
    """Show flows with packets, bytes and idle time, the busiest first."""
    present(options, lambda: ask(options, "flows"), _flows)


def _flows(document: Document) -> Iterator[Shown]:
    yield Columns(
        ("IN", "OUT", "PROTO", "INSIDE", "OUTSIDE", ">PACKETS", ">BYTES", ">IDLE", "FAST"),
        [
            (
                flow["in"],
                flow["out"],
                flow["protocol"],
                flow["inside"],
                flow["outside"],
                flow["packets"],
                flow["bytes"],
                f"{flow['idle_s']:.0f} s",
                flow["fast"],
            )
            for flow in document["flows"]
        ],
        empty="no flows",
    )
