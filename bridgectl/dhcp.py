"""`bridgectl dhcp`: the lease of tap1."""

from __future__ import annotations

import time
from collections.abc import Iterator

import click

from bridgectl.daemon import ask
from bridgectl.errors import Failed
from bridgectl.options import Options, shared
from bridgectl.output import Columns, Document, Shown, present, show

ANSWER_S = 10.0
_POLL_S = 0.05


@click.group()
def command() -> None:
    """The lease of tap1: show, renew, release."""


@command.command("show")
@shared(watch=True)
def show_lease(options: Options) -> None:
    """Show the lease and its timers (also the bare word `dhcp`)."""
    present(options, lambda: ask(options, "dhcp.show"), _lease)


@command.command()
@shared()
def renew(options: Options) -> None:
    """Ask a server now, and wait for its answer: at most 10 s, then the exit code is 1."""
    before = ask(options, "dhcp.renew")["lease"]["answers"]
    deadline = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        document = ask(options, "dhcp.show")
        if document["lease"]["answers"] != before:
            show(document, as_json=options.json, people=_lease)
            return
        time.sleep(_POLL_S)
    raise Failed(f"no server has answered within {ANSWER_S:g} s")


@command.command()
@shared()
def release(options: Options) -> None:
    """Give the address back. None is asked for before `renew`, a reload or a start."""
    show(ask(options, "dhcp.release"), as_json=options.json, people=_lease)


def _lease(document: Document) -> Iterator[Shown]:
    lease = document["lease"]
    if lease is None:
        yield "no lease: the address of tap1 is static"
        return
    if lease["address"] is None:
        yield f"{lease['port']}: no address, {lease['state']}"
        return
    rows = [
        ("state", lease["state"]),
        ("address", f"{lease['address']}/{lease['prefix_length']}"),
        ("gateway", lease["gateway"]),
        ("server", lease["server"]),
        ("dns", ", ".join(lease["dns"])),
        ("domain", lease["domain"]),
        ("mtu", lease["mtu"]),
        ("obtained", f"{lease['obtained_s']:.0f} s ago"),
        *((name, _ahead(lease[f"{name}_s"])) for name in ("renew", "rebind", "expires")),
    ]
    yield Columns((lease["port"].upper(), "LEASE"), [(name, value or None) for name, value in rows])


def _ahead(seconds: float | None) -> str:
    return "never" if seconds is None else f"in {seconds:.0f} s"
