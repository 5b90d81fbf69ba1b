"""Asking the daemon, and what to do where none runs.

The control socket is found without reading the whole configuration: a reader of counters should not wait for the
checks of a file that the daemon has checked already.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import click

from bridge.config.control_socket import socket_of
from bridge.config.defaults import DEFAULT_SOCKET
from bridge.control.client import ControlError, Document, request, stream
from bridge.control.client import NotRunning as NobodyListens
from bridgectl.faults import NotRunning, with_code
from bridgectl.options import Options


def ask(options: Options, command: str, arguments: Document | None = None) -> Document:
    """The daemon's answer. Exits with 3 where no daemon runs (4 where a configuration was named that is none)."""
    path = socket_path(options)
    try:
        return request(path, command, arguments)
    except NobodyListens as fault:
        if options.config is not None:
            _offline().load_config(options.config)
        raise NotRunning(f"the daemon is not running: {fault}") from fault
    except ControlError as fault:
        raise with_code(fault.code, fault.message) from fault


def ask_or_work_out(options: Options, command: str, arguments: Document | None = None) -> Document:
    """The daemon's answer, or where none runs and a configuration was named, that of the configuration itself."""
    try:
        return request(socket_path(options), command, arguments)
    except NobodyListens as fault:
        if options.config is None:
            raise NotRunning(f"the daemon is not running: {fault}") from fault
        answer: Document = _offline().answer(options.config, command, arguments or {})
        click.echo(f"The daemon is not running: answered from {options.config}.", err=True)
        return answer
    except ControlError as fault:
        raise with_code(fault.code, fault.message) from fault


def follow(options: Options, command: str, arguments: Document) -> Generator[Document]:
    """The answer of a command that goes on, then its records."""
    try:
        yield from stream(socket_path(options), command, arguments)
    except NobodyListens as fault:
        raise NotRunning(f"the daemon is not running: {fault}") from fault
    except ControlError as fault:
        raise with_code(fault.code, fault.message) from fault


def socket_path(options: Options) -> Path:
    """`--socket`, else what the configuration file says, else the default."""
    if options.socket is not None:
        return options.socket
    try:
        written = socket_of(options.config_path)
    except (OSError, ValueError):
        if options.config is not None:
            _offline().load_config(options.config)  # it tells what is wrong with the file
        return DEFAULT_SOCKET
    if written is None:
        _offline().load_config(options.config_path)
    return written or DEFAULT_SOCKET


def _offline() -> Any:
    from bridgectl import offline  # noqa: PLC0415 - pydantic and the whole walk: only where no daemon answers

    return offline
