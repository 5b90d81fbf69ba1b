"""`bridgectl trace`: one packet's walk through the real code, changing nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from bridgectl import words as spoken
from bridgectl.daemon import ask_or_work_out
from bridgectl.errors import Failed
from bridgectl.options import Options, shared
from bridgectl.output import Columns, Document, Shown, present


@click.command(
    epilog="Examples: `trace --port tap0 udp 192.168.200.3:5000 8.8.8.8:53`, `trace icmp 192.168.200.3 8.8.8.8`, "
    "`trace tcp 192.168.200.3:5000 8.8.8.8:443 flags=S`, `trace --pcap lan.pcap --frame 7`."
)
@click.argument("words", nargs=-1)
@click.option(
    "--port", metavar="PORT", help="The port that it comes in by: tap0, tap1, tun0, vpn or vpn:NODE; default: tap0."
)
@click.option("--hex", "hex_digits", metavar="DIGITS", help="The frame as the port carries it.")
@click.option("--pcap", "capture", type=click.Path(path_type=Path), metavar="FILE", help="A frame of a capture.")
@click.option("--frame", "number", type=click.IntRange(min=1), metavar="N", help="The frame's number, from 1.")
@shared(watch=True)
def command(
    options: Options,
    words: tuple[str, ...],
    port: str | None,
    hex_digits: str | None,
    capture: Path | None,
    number: int | None,
) -> None:
    """Walk one packet through the gateway, changing nothing.

    Each step is shown, and nothing is sent. Give the packet as --hex, as --pcap with --frame, or in words: udp A:PORT
    B:PORT, tcp A:PORT B:PORT [flags=S], icmp A B. With -c it needs no daemon.
    """
    if [bool(words), hex_digits is not None, capture is not None].count(True) != 1:
        raise click.UsageError("Give the packet once: --hex, --pcap with --frame, or in words.")
    if number is not None and capture is None:
        raise click.UsageError("--frame needs --pcap.")
    arguments: dict[str, Any] = {"port": port}
    if hex_digits is not None:
        arguments["frame"] = _digits(hex_digits)
    elif capture is not None:
        arguments |= _captured(capture, number or 1)
    else:
        try:
            arguments["packet"] = spoken.packet(words).hex()
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    present(options, lambda: ask_or_work_out(options, "trace", arguments), _walk)


def _digits(text: str) -> str:
    digits = "".join(text.replace(":", " ").split())
    try:
        return bytes.fromhex(digits).hex()
    except ValueError as error:
        raise click.BadParameter("two hexadecimal digits for each byte", param_hint="--hex") from error


def _captured(path: Path, number: int) -> dict[str, Any]:
    from wire import pcap  # noqa: PLC0415 - only this form of the command reads captures

    seen = 0
    try:
        with path.open("rb") as file:
            for record in pcap.read(file, str(path)):
                seen += 1
                if seen == number:
                    told = {"segment_bytes": record.segment_bytes} if record.segment_bytes else {}
                    return {"frame": record.data.hex(), "link_type": record.link_type, **told}
    except pcap.CaptureError as error:
        raise Failed(str(error)) from error
    raise Failed(f"{path} has {seen} frames, no frame {number}")


def _walk(document: Document) -> Iterator[Shown]:
    yield Columns(
        ("", "ROOM", "SAYS"),
        [(number, step["room"], step["says"]) for number, step in enumerate(document["steps"], start=1)],
    )
    drop = f" ({document['drop']})" if document["drop"] else ""
    yield f"verdict: {document['verdict']}{drop}"
    for sent in document["out"]:
        yield f"out {sent['port']}: {sent['summary']}"
