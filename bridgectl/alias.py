"""`bridgectl alias`: the NAT links."""

from __future__ import annotations

from collections.abc import Iterator

import click

from bridgectl.daemon import ask
from bridgectl.options import Options, address, shared
from bridgectl.output import Columns, Document, Shown, present, show


@click.group()
def command() -> None:
    """NAT links: show, flush."""


@command.command("show")
@shared(watch=True)
def show_links(options: Options) -> None:
    """Show every link (also the bare word `alias`)."""
    present(options, lambda: ask(options, "alias.show"), _links)


def _links(document: Document) -> Iterator[Shown]:
    links = document["links"]
    if links:
        yield Columns(
            ("PROTO", "INSIDE", "OUTSIDE", "ON", "STATE", ">IDLE", ">EXPIRES", ">PACKETS", ">BYTES"),
            [
                (
                    link["protocol"],
                    link["inside"],
                    link["outside"],
                    link["on"],
                    link["state"],
                    _seconds(link["idle_s"]),
                    _seconds(link["expires_s"]),
                    link["packets"],
                    link["bytes"],
                )
                for link in links
            ],
        )
    yield f"{len(links)} links, at most {document['max_links']}"


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.0f} s"


@command.command()
@click.option("--inside", metavar="IP", callback=address, help="Only links of this inside host.")
@shared()
def flush(options: Options, inside: str | None) -> None:
    """End all links but the static ones, or those of one host."""
    document = ask(options, "alias.flush", {"inside": inside})
    show(document, as_json=options.json, people=lambda said: [f"{said['flushed']} links flushed"])
