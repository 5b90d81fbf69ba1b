"""`bridgectl run`: the gateway in the foreground."""

from __future__ import annotations

import click

from bridgectl.options import Options, shared


@click.command()
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0, max=86_400),
    metavar="SECONDS",
    help="Wait so long for bridges that are not there yet.",
)
@shared(json=False)
@click.pass_context
def command(ctx: click.Context, options: Options, wait_s: float | None) -> None:
    """Run the gateway in the foreground.

    SIGHUP reloads the configuration. SIGTERM and SIGINT stop the gateway, and nothing is left behind.
    """
    from bridge.daemon import daemon  # noqa: PLC0415 - pydantic and the walk, not for `bridgectl --help`

    ctx.exit(daemon.run(options.config_path, options.socket, wait_s))
