"""Errors that end a command: an exception for each public exit code. For 2 (usage) click has its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

import click


class Failed(click.ClickException):
    """The command failed at run time."""

    exit_code = 1


class NotRunning(click.ClickException):
    """No daemon listens on the control socket."""

    exit_code = 3


class BadConfiguration(click.ClickException):
    """The configuration is missing or invalid. Each error has a line of its own, `FILE:LINE: ...`."""

    exit_code = 4

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the errors without a prefix, so that editors find file and line."""
        click.echo(self.message, file=file, err=file is None)


def with_code(code: int, message: str) -> click.ClickException:
    """The exception for an exit code that the daemon named. `message`: one line for each error."""
    if code == 2:
        return click.UsageError(message)
    if code == 3:
        return NotRunning(message)
    if code == 4:
        return BadConfiguration(message.splitlines())
    return Failed(message)
