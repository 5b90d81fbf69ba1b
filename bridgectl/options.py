"""The options that commands share, and checks of their values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from wire.units import address_int

DEFAULT_CONFIG = Path("/etc/tapbridge/gateway.toml")
PORTS = ("tap0", "tap1", "tun0", "vpn")

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Options:
    """The shared options of a command line. `config` and `socket` are None where they were not given; `watch_s` is None
    where the answer is shown once."""

    config: Path | None
    socket: Path | None
    json: bool
    watch_s: float | None

    @property
    def config_path(self) -> Path:
        """The configuration file that was given, else the default."""
        return self.config if self.config is not None else DEFAULT_CONFIG


def shared(
    *, json: bool = True, watch: bool = False, json_help: str = "Print one JSON document."
) -> Callable[[_F], _F]:
    """Give a command `-c` and `--socket`, and where wanted `-j` and `--watch`; it gets them as one `Options`."""

    def decorate(function: _F) -> _F:
        @wraps(function)
        def command(
            *args: Any,
            config: Path | None,
            socket: Path | None,
            as_json: bool = False,
            watch_s: float | None = None,
            **others: Any,
        ) -> Any:
            return function(Options(config, socket, as_json, watch_s), *args, **others)

        wrapped: Any = command
        if watch:
            wrapped = click.option(
                "--watch",
                "watch_s",
                type=click.FloatRange(min=0.1, max=86_400),
                callback=_finite,
                metavar="[SECONDS]",
                help="Show again every SECONDS (default: 2), until Ctrl-C.",
            )(wrapped)
        if json:
            wrapped = click.option("-j", "--json", "as_json", is_flag=True, help=json_help)(wrapped)
        wrapped = click.option(
            "--socket",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="The daemon's control socket; default: the one that the configuration names.",
        )(wrapped)
        result: _F = click.option(
            "-c",
            "--config",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help=f"The configuration file; default: {DEFAULT_CONFIG}.",
        )(wrapped)
        return result

    return decorate


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and math.isnan(value):
        raise click.BadParameter("this is no number of seconds", ctx, param)
    return value


def port(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A callback for options that name a port: a name that no gateway has is a usage error, before anybody is asked.

    The names are `PORTS` and `vpn:NODE`. Whether this gateway has the port, and which nodes, the gateway knows.
    """
    if value is not None:
        name, colon, node = value.partition(":")
        if name not in PORTS or (colon and (name != "vpn" or not node)):
            raise click.BadParameter(f"{value!r:.80} is no port: {', '.join(PORTS)} or vpn:NODE", ctx, param)
    return value


def address(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A callback for arguments and options that are an IPv4 address: anything else is a usage error."""
    if value is not None:
        try:
            address_int(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from error
    return value
