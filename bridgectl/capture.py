"""`bridgectl capture`: the frames of a port as they pass, as pcapng or one line each."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import click

from bridge.replay.summary import summary
from bridgectl.bpf import DLT_ETHERNET, DLT_RAW, BadFilter, Filter, NoLibrary
from bridgectl.daemon import follow
from bridgectl.ending import until_interrupted
from bridgectl.errors import Failed
from bridgectl.options import Options, shared
from bridgectl.options import port as port_name
from bridgectl.version import version
from wire.capture import LINK_ETHERNET, LINK_RAW
from wire.captured import completed
from wire.pcapng import INBOUND, OUTBOUND, PROGRAM, PcapngWriter

_STDOUT = "-"
Record = dict[str, Any]
Show = Callable[[Record, bytes], None]
"""Prints or writes one frame."""


@click.command()
@click.option("--port", required=True, metavar="PORT", callback=port_name, help="tap0, tap1, tun0, vpn or vpn:NODE.")
@click.option("-w", "--write", "target", metavar="FILE", help="Write pcapng to a file, - for standard output.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Stop after N frames.")
@click.option("--filter", "expression", metavar="EXPR", help="Only frames that match a filter in tcpdump's language.")
@shared(json=False)
def command(options: Options, port: str, target: str | None, count: int | None, expression: str | None) -> None:
    """Show the frames of a port as they pass.

    Each frame is a line, until Ctrl-C. With -w the frames are written as pcapng: bridgectl capture --port tap0 -w - |
    tcpdump -nr -
    """
    shown = lost = 0
    is_cut = False  # the gateway has ended the stream, not the count and not Ctrl-C
    with ExitStack() as stack:
        records = stack.enter_context(closing(follow(options, "capture", {"port": port})))
        stack.enter_context(until_interrupted())
        try:
            is_tap = next(records)["kind"] == "tap"
            matches = _filter(expression, stack, is_tap=is_tap)
            show = _printer(is_tap=is_tap) if target is None else _writer(target, port, stack, is_tap=is_tap)
            for record in records:
                lost += record.get("lost", 0)
                data = base64.b64decode(record["frame"])
                if not matches(data):
                    continue
                show(record, data)
                shown += 1
                if shown == count:
                    break
            else:
                is_cut = True
        except BrokenPipeError:
            _give_up_stdout()
    if target is not None or lost:
        click.echo(f"{shown} frames" + (f", {lost} lost because they were read too slowly" if lost else ""), err=True)
    if is_cut:
        raise Failed("the gateway has ended")


def _filter(expression: str | None, stack: ExitStack, *, is_tap: bool) -> Callable[[bytes], bool]:
    if expression is None:
        return lambda _: True
    try:
        compiled = Filter(expression, DLT_ETHERNET if is_tap else DLT_RAW)
    except NoLibrary as error:
        raise Failed(str(error)) from error
    except BadFilter as error:
        raise click.BadParameter(str(error), param_hint="--filter") from error
    stack.callback(compiled.close)
    return compiled.matches


def _writer(target: str, port: str, stack: ExitStack, *, is_tap: bool) -> Show:
    """Frames as pcapng, each of them flushed: whoever reads the pipe sees it at once."""
    file: BinaryIO = sys.stdout.buffer
    if target != _STDOUT:
        file = stack.enter_context(Path(target).open("wb"))  # noqa: SIM115 - the caller's stack closes it
    writer = PcapngWriter(file, [(port, LINK_ETHERNET if is_tap else LINK_RAW)], f"{PROGRAM} {version()}")
    file.flush()

    def show(record: Record, data: bytes) -> None:
        try:
            direction = INBOUND if record["direction"] == "in" else OUTBOUND
            whole = completed(data, is_ethernet=is_tap) if record.get("partial_checksum") else data
            writer.write(0, record["t_ns"], direction, whole, record.get("segment_bytes", 0))
            file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:  # the error of a full disk names no file
            with suppress(OSError):
                file.close()  # its buffer finds no room either
            error.filename = target
            raise

    return show


def _printer(*, is_tap: bool) -> Show:
    """Print frames as lines: time of day, port, direction, summary."""

    def show(record: Record, data: bytes) -> None:
        seconds, nanoseconds = divmod(record["t_ns"], 1_000_000_000)
        clock = f"{datetime.fromtimestamp(seconds):%H:%M:%S}.{nanoseconds // 1000:06d}"
        direction = "In " if record["direction"] == "in" else "Out"
        click.echo(f"{clock} {record['port']} {direction} {summary(data, ethernet=is_tap)}")

    return show


def _give_up_stdout() -> None:
    """The reader of the pipe has gone: Python must not flush anything into it when it ends."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
