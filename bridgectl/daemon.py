"""Asking the daemon, and the answer where none runs.

The control socket is found without checking the whole configuration: the daemon has checked the file already, and the
user should not wait for that again.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import click

from bridge.config.control_socket import socket_of
from bridge.config.defaults import DEFAULT_SOCKET
from bridge.control.client import ControlError, NobodyListens, request, stream
from bridge.control.protocol import Document
from bridgectl.errors import NotRunning, with_code
from bridgectl.options import Options


def ask(options: Options, command: str, arguments: Document | None = None) -> Document:
    """The daemon's answer. Raises `NotRunning` (exit code 3) where no daemon runs, or `BadConfiguration` (4) where none
    runs and the configuration that was named is invalid; else the error with the code of the daemon's refusal."""
    path = socket_path(options)
    try:
        return request(path, command, arguments)
    except NobodyListens as error:
        if options.config is not None:
            _offline().load_config(options.config)
        raise NotRunning(f"the daemon is not running: {error}") from error
    except ControlError as error:
        raise with_code(error.code, error.message) from error


def ask_or_work_out(options: Options, command: str, arguments: Document | None = None) -> Document:
    """The daemon's answer. Where none runs and a configuration was named, the answer is worked out from that file.
    Raises as `ask`."""
    try:
        return request(socket_path(options), command, arguments)
    except NobodyListens as error:
        if options.config is None:
            raise NotRunning(f"the daemon is not running: {error}") from error
        answer: Document = _offline().answer(options.config, command, arguments or {})
        click.echo(f"The daemon is not running: answered from {options.config}.", err=True)
        return answer
    except ControlError as error:
        raise with_code(error.code, error.message) from error


def follow(options: Options, command: str, arguments: Document) -> Generator[Document]:
    """The answer of a command that goes on, then its records. Raises as `ask`."""
    try:
        yield from stream(socket_path(options), command, arguments)
    except NobodyListens as error:
        raise NotRunning(f"the daemon is not running: {error}") from error
    except ControlError as error:
        raise with_code(error.code, error.message) from error


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
