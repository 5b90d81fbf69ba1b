"""`bridgectl top`: a live screen of ports with their rates, top talkers and drops."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from bridgectl.daemon import ask
from bridgectl.ending import until_interrupted
from bridgectl.options import Options, shared
from bridgectl.output import Columns, Document, Shown, rich_table, show
from bridgectl.stats import duration

_INTERVAL_S = 1.0
_TALKERS = 12
_REASONS = 10


@click.command()
@shared(watch=True)
def command(options: Options) -> None:
    """Show rates, top talkers and drops, live.

    Ctrl-C ends it. --watch sets the interval (default: 1 second). In a pipe, or with -j, it shows one interval and
    ends.
    """
    interval_s = options.watch_s or _INTERVAL_S
    if options.json or not sys.stdout.isatty():
        before = _sample(options)
        time.sleep(interval_s)
        show(rates(before, _sample(options)), as_json=options.json, people=_screen)
        return
    _live(options, interval_s)


def _live(options: Options, interval_s: float) -> None:
    from rich.console import Group  # noqa: PLC0415 - only a terminal pays for it
    from rich.live import Live  # noqa: PLC0415 - the same

    before = _sample(options)
    with until_interrupted(), Live(Group(""), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval_s)
            after = _sample(options)
            parts = _screen(rates(before, after))
            live.update(Group(*(part if isinstance(part, str) else rich_table(part) for part in parts)), refresh=True)
            before = after


def _sample(options: Options) -> Document:
    return {"stats": ask(options, "stats"), "flows": ask(options, "flows")["flows"]}


def rates(before: Document, after: Document) -> Document:
    """The rates between two samples: packets, bytes and drops per second, and the busiest flows in bit/s."""
    elapsed_s = max(after["stats"]["uptime_s"] - before["stats"]["uptime_s"], 0.001)
    earlier = {_flow_key(flow): flow["bytes"] for flow in before["flows"]}
    talkers = [
        {**flow, "bits_per_s": max(flow["bytes"] - earlier.get(_flow_key(flow), 0), 0) * 8 / elapsed_s}
        for flow in after["flows"]
    ]
    drops_before = before["stats"]["drops"]
    return {
        "version": 1,
        "uptime_s": after["stats"]["uptime_s"],
        "ports": {
            name: {
                f"{key}_per_s": (port[key] - before["stats"]["ports"].get(name, port)[key]) / elapsed_s
                for key in ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")
            }
            for name, port in after["stats"]["ports"].items()
        },
        "flows": len(after["flows"]),
        "talkers": sorted(talkers, key=lambda flow: -flow["bits_per_s"])[:_TALKERS],
        "drops": {
            reason: {"packets": number, "per_s": (number - drops_before.get(reason, 0)) / elapsed_s}
            for reason, number in after["stats"]["drops"].items()
            if number
        },
    }


def _flow_key(flow: dict[str, Any]) -> tuple[str, ...]:
    return flow["in"], flow["protocol"], flow["inside"], flow["outside"]


def _screen(document: Document) -> Iterator[Shown]:
    yield f"up {duration(document['uptime_s'])}, {document['flows']} flows"
    yield Columns(
        ("PORT", ">RX PACKETS/S", ">RX", ">TX PACKETS/S", ">TX"),
        [
            (
                name,
                f"{port['rx_packets_per_s']:.0f}",
                bits(port["rx_bytes_per_s"] * 8),
                f"{port['tx_packets_per_s']:.0f}",
                bits(port["tx_bytes_per_s"] * 8),
            )
            for name, port in document["ports"].items()
        ],
    )
    yield Columns(
        ("IN", "OUT", "PROTO", "INSIDE", "OUTSIDE", ">RATE", ">BYTES"),
        [
            (flow["in"], flow["out"], flow["protocol"], flow["inside"], flow["outside"], rate, flow["bytes"])
            for flow, rate in ((flow, bits(flow["bits_per_s"])) for flow in document["talkers"])
        ],
        title="Top talkers",
        empty="none",
    )
    drops = sorted(document["drops"].items(), key=lambda item: (-item[1]["per_s"], -item[1]["packets"]))
    yield Columns(
        ("REASON", ">PACKETS/S", ">PACKETS"),
        [(reason, f"{drop['per_s']:.0f}", drop["packets"]) for reason, drop in drops[:_REASONS]],
        title="Drops",
        empty="none",
    )


def bits(per_second: float) -> str:
    """`12.3 Mbit/s`."""
    for unit, size in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if per_second >= size:
            return f"{per_second / size:.1f} {unit}"
    return f"{per_second:.0f} bit/s"
