"""`bridgectl stats`: counters of each port, every drop reason."""

from __future__ import annotations

from collections.abc import Iterator

import click

from bridgectl.daemon import ask
from bridgectl.options import Options, shared
from bridgectl.output import Columns, Document, Shown, copies, present


@click.command()
@shared(watch=True)
def command(options: Options) -> None:
    """Show counters of each port and every drop reason, zeros too."""
    present(options, lambda: ask(options, "stats"), _counters)


def _counters(document: Document) -> Iterator[Shown]:
    yield f"up {duration(document['uptime_s'])}"
    yield from copies(document)
    yield Columns(
        ("PORT", ">RX PACKETS", ">RX BYTES", ">TX PACKETS", ">TX BYTES"),
        [
            (name, port["rx_packets"], port["rx_bytes"], port["tx_packets"], port["tx_bytes"])
            for name, port in document["ports"].items()
        ],
    )
    yield Columns(
        ("FRAMES IN", ">SENT", ">ANSWERED", ">TAKEN IN", ">HELD", ">DROPPED"),
        [
            (name, fates["sent"], fates["answered"], fates["taken"], fates["held"], fates["dropped"])
            for name, fates in document["fates"].items()
        ],
    )
    yield Columns(("DROP REASON", ">PACKETS"), list(document["drops"].items()))
    if document.get("ipv6_routers"):
        routers = [(router["port"], router["mac"]) for router in document["ipv6_routers"]]
        yield Columns(("PORT", "IPV6 ROUTER, PAST THIS GATEWAY"), routers)
    said = dict(document["fast_path"])
    punts = said.pop("punts", {})
    repeated = said.pop("repeated", {})
    said["segmentation"] = _in_one_piece(said.pop("segmentation", None))
    said["repeated"] = sum(port["repeated_in"] for port in repeated.values())
    yield Columns(("FAST PATH", ">"), list(said.items()))
    yield Columns(("LEFT TO THE WALK", ">FRAMES"), list(punts.items()))


def _in_one_piece(segmentation: Document | None) -> str | None:
    """`both ways`, or the reason why runs of sealed packets do not pass the kernel in one piece."""
    if segmentation is None:
        return None
    if segmentation["reason"]:
        return f"{'sending' if segmentation['sends'] else 'off'}: {segmentation['reason']}"
    return "both ways"


def duration(seconds: float) -> str:
    """`3d 04:05:06`."""
    days, rest = divmod(int(seconds), 86_400)
    clock = f"{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"
    return f"{days}d {clock}" if days else clock
