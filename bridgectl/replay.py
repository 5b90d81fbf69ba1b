"""`bridgectl replay`: the forwarder over captures, under their clock and without privileges."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bridge.replay.run import ReplaySummary

from bridgectl.errors import Failed
from bridgectl.options import Options, shared
from bridgectl.output import Columns, Shown, print_shown
from wire.units import SECOND_NS

_LONGEST_LINGER_S = 10**9


def _captures(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, Path]]:
    """Values `PORT=FILE` as pairs of port and path."""
    parts = [value.partition("=") for value in values]
    for value, (port, _, path) in zip(values, parts, strict=True):
        if not port or not path:
            raise click.BadParameter(f"{value!r} is not PORT=FILE", ctx, param)
    return [(port, Path(path)) for port, _, path in parts]


def _nanoseconds(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Seconds with decimals as ns, without rounding."""
    try:
        seconds = Decimal(value)
    except InvalidOperation:
        seconds = Decimal(-1)
    if not (seconds.is_finite() and 0 <= seconds <= _LONGEST_LINGER_S):
        raise click.BadParameter(f"{value!r} is no number of seconds from 0 up", ctx, param)
    return int(seconds * SECOND_NS)


@click.command()
@click.option(
    "--in",
    "inputs",
    multiple=True,
    callback=_captures,
    metavar="PORT=FILE",
    help="A capture and the port that it came in by: tap0, tap1, tun0, vpn or vpn:NODE. May be given many times.",
)
@click.option(
    "--out",
    "directory",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The folder for tap0.pcap, tap1.pcap, tun0.pcap, vpn.pcap and vpn-NODE.pcap; made if it is missing.",
)
@click.option(
    "--linger",
    "linger_ns",
    default="0",
    callback=_nanoseconds,
    metavar="SECONDS",
    help="Let the clock run on so long after the last packet.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="The seed of every random choice.")
@click.option("--announce", is_flag=True, help="Send the start-up probes and announcements (RFC 5227) as well.")
@shared(json_help="Print a line of JSON for each event.")
def command(
    options: Options,
    inputs: list[tuple[str, Path]],
    directory: Path,
    linger_ns: int,
    seed: int,
    announce: bool,
) -> None:
    """Send captures through the forwarder.

    The timestamps of the captures are its clock. It needs no devices, privileges or keys; equal inputs give equal
    bytes.
    """
    from bridge.config.into_walk import gateway_settings  # noqa: PLC0415 - the same
    from bridge.replay import run as replay  # noqa: PLC0415 - the whole walk, not for `bridgectl --help`
    from bridgectl.offline import load_config, load_routes  # noqa: PLC0415 - the same
    from wire.capture import CaptureError  # noqa: PLC0415 - the same

    config = load_config(options.config_path)
    routes, settings = load_routes(config), gateway_settings(config)
    try:
        given = [replay.Input(replay.port_name(settings, routes, port), path) for port, path in inputs]
        report = replay.run(
            config,
            routes,
            given,
            directory,
            linger_ns=linger_ns,
            announce=announce,
            seed=seed,
            tell=_print_line if options.json else None,
        )
    except replay.Misuse as error:
        raise click.UsageError(str(error)) from error
    except CaptureError as error:
        raise Failed(str(error)) from error
    if not options.json:
        print_shown(_report(report, directory))


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")


def _report(report: ReplaySummary, directory: Path) -> Iterator[Shown]:
    yield Columns(
        ("PORT", ">RX PACKETS", ">RX BYTES", ">TX PACKETS", ">TX BYTES"),
        [
            (passed.port, passed.rx_packets, passed.rx_bytes, passed.tx_packets, passed.tx_bytes)
            for passed in report.ports
        ],
    )
    yield Columns(
        ("PORT", "DROP REASON", ">PACKETS"),
        [(passed.port, reason, number) for passed in report.ports for reason, number in passed.drops.items()],
        empty="no drops",
    )
    yield f"{(report.ended_ns - report.began_ns) / SECOND_NS:.6f} s of virtual time; outputs in {directory}"
