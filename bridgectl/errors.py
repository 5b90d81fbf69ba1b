"""How a command ends when it does not end well: an exception for each public exit code (usage, 2, is click's own)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

import click


class Failed(click.ClickException):
    """Failed at run time."""

    exit_code = 1


class NotRunning(click.ClickException):
    """There is no daemon behind the control socket."""

    exit_code = 3


class BadConfiguration(click.ClickException):
    """The configuration is missing or invalid: each fault is a line of its own, `FILE:LINE: ...`."""

    exit_code = 4

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))

    def show(self, file: IO[Any] | None = None) -> None:
        """The faults as they are, so that editors find file and line."""
        click.echo(self.message, file=file, err=file is None)


def with_code(code: int, message: str) -> click.ClickException:
    """The exception for an exit code that the daemon named."""
    if code == 2:
        return click.UsageError(message)
    if code == 3:
        return NotRunning(message)
    if code == 4:
        return BadConfiguration(message.splitlines())
    return Failed(message)
