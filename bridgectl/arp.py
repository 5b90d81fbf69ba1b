"""`bridgectl arp`: the ARP tables."""

from __future__ import annotations

import time
from collections.abc import Iterator

import click

from bridgectl.daemon import ask
from bridgectl.errors import Failed
from bridgectl.options import Options, address, shared
from bridgectl.output import Columns, Document, Shown, present, show

_PROBE_S = 4.0  # three requests a second apart, and a second for the last answer
_POLL_S = 0.05

_port = click.option(
    "--port", metavar="PORT", help="tap0 or tap1; default: both, or the port whose subnet holds the address."
)


@click.group()
def command() -> None:
    """The ARP tables: show, flush, add, del, probe."""


@command.command("show")
@_port
@shared(watch=True)
def show_tables(options: Options, port: str | None) -> None:
    """Show every entry (also the bare word `arp`)."""
    present(options, lambda: ask(options, "arp.show", {"port": port}), _tables)


def _tables(document: Document) -> Iterator[Shown]:
    for table in document["tables"]:
        subnet = table["subnet"] or "without an address"
        yield Columns(
            ("IP", "MAC", "STATE", ">AGE"),
            [(entry["ip"], entry["mac"], entry["state"], _age(entry)) for entry in table["entries"]],
            title=f"{table['port']} {subnet}: {table['used']} of {table['slots']} slots used",
        )


def _age(entry: Document) -> str:
    return "-" if entry["static"] else f"{entry['age_s']:.0f} s"


@command.command()
@_port
@shared()
def flush(options: Options, port: str | None) -> None:
    """Forget learned entries; static ones stay."""
    document = ask(options, "arp.flush", {"port": port})
    show(document, as_json=options.json, people=lambda said: [f"{said['flushed']} entries flushed"])


@command.command()
@click.argument("ip", callback=address)
@click.argument("mac")
@_port
@shared()
def add(options: Options, ip: str, mac: str, port: str | None) -> None:
    """Add a static entry, or make one static."""
    document = ask(options, "arp.add", {"ip": ip, "mac": mac, "port": port})
    show(document, as_json=options.json, people=lambda said: [f"{said['ip']} is at {said['mac']} on {said['port']}"])


@command.command("del")
@click.argument("ip", callback=address)
@_port
@shared()
def delete(options: Options, ip: str, port: str | None) -> None:
    """Delete one entry."""
    document = ask(options, "arp.del", {"ip": ip, "port": port})
    show(document, as_json=options.json, people=lambda said: [f"{said['ip']} deleted from {said['port']}"])


@command.command()
@click.argument("ip", callback=address)
@_port
@shared()
def probe(options: Options, ip: str, port: str | None) -> None:
    """Ask for an address now and wait for the answer.

    Without an answer the exit code is 1.
    """
    began = time.monotonic()
    document = ask(options, "arp.probe", {"ip": ip, "port": port})
    while document["answered"] is None and time.monotonic() - began < _PROBE_S:
        time.sleep(_POLL_S)
        document = ask(options, "arp.entry", {"ip": ip, "port": port})
    if not document["answered"]:
        raise Failed(f"{ip} does not answer on {document['port']}")
    answered_ms = (time.monotonic() - began) * 1000
    show(
        document,
        as_json=options.json,
        people=lambda said: [f"{ip} is at {said['entry']['mac']} on {said['port']}, {answered_ms:.0f} ms"],
    )
