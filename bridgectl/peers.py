"""`bridgectl peers`: the peers of the tunnel."""

from __future__ import annotations

from collections.abc import Iterator

import click

from bridgectl.daemon import ask
from bridgectl.options import Options, shared
from bridgectl.output import Columns, Document, Shown, present


@click.command()
@shared(watch=True)
def command(options: Options) -> None:
    """Show the tunnel's peers: state, endpoint, path MTU, latest handshake, bytes."""
    present(options, lambda: ask(options, "peers"), _peers)


def _peers(document: Document) -> Iterator[Shown]:
    yield Columns(
        (
            "PEER",
            "STATE",
            "ENDPOINT",
            "VIA",
            ">MTU",
            ">HANDSHAKE",
            ">RX BYTES",
            ">TX BYTES",
            ">KEEPALIVE",
            "ALLOWED IPS",
        ),
        [
            (
                peer["name"],
                peer["state"],
                peer["endpoint"],
                peer["via"],
                None if peer["mtu"] is None else f"{peer['mtu']} {peer['mtu_state']}",
                _seconds(peer["latest_handshake_s"], " ago"),
                peer["rx_bytes"],
                peer["tx_bytes"],
                _seconds(peer["persistent_keepalive_s"], ""),
                ", ".join(peer["allowed_ips"]) or None,
            )
            for peer in document["peers"]
        ],
        empty="no peers",
    )
    announced = [row for peer in document["peers"] for row in _announced(peer)]
    if announced:
        yield Columns(("PEER", "ANNOUNCED BY", "PREFIX", "ANSWER"), announced)
    if document["peers"]:
        yield Columns(
            ("PEER", "PUBLIC KEY"),
            [(peer["name"], peer["public_key"]) for peer in document["peers"]],
        )


def _announced(peer: Document) -> Iterator[tuple[str, str, str, str]]:
    """Rows: each prefix that the peer announces, with our answer, then each prefix that we announce, with its
    answer."""
    for prefix in peer["announced"]:
        yield peer["name"], "it", prefix, "accepted"
    for refused in peer["refused"]:
        yield peer["name"], "it", refused["prefix"], refused["reason"]
    for told in peer["told"]:
        yield peer["name"], "us", told["prefix"], told["answer"] or "none yet"


def _seconds(seconds: float | None, more: str) -> str | None:
    return None if seconds is None else f"{seconds:.0f} s{more}"
