"""`bridgectl`: the group of all commands. Each command is a module of this room, imported when it is called for."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Sequence

import click

from bridgectl.arguments import ordered
from bridgectl.errors import Failed

# Command word -> module (its `command` is the click command, or the name behind a colon). The help shows them in this
# order.
COMMANDS: dict[str, str] = {
    "run": "bridgectl.run",
    "check": "bridgectl.check",
    "reload": "bridgectl.reload",
    "arp": "bridgectl.arp",
    "alias": "bridgectl.alias",
    "flows": "bridgectl.flows",
    "route": "bridgectl.route",
    "peers": "bridgectl.peers",
    "dhcp": "bridgectl.dhcp",
    "stats": "bridgectl.stats",
    "trace": "bridgectl.trace",
    "capture": "bridgectl.capture",
    "replay": "bridgectl.replay",
    "top": "bridgectl.top",
    "demo": "bridgectl.demo",
    "import": "bridgectl.wgquick:import_",
    "export": "bridgectl.wgquick:export",
    "genkey": "bridgectl.keys:genkey",
    "pubkey": "bridgectl.keys:pubkey",
    "completion": "bridgectl.completion",
}


class CommandGroup(click.Group):
    """A group whose commands are imported on demand and whose options may stand anywhere on the line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command words first, and let click parse. While a shell completes the line, a second word may
        follow."""
        return super().parse_args(ctx, ordered(args, complete=not ctx.resilient_parsing))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The command words in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a word, None where there is none."""
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        name, _, attribute = module.partition(":")
        command: click.Command = getattr(importlib.import_module(name), attribute or "command")
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command. A refusal of the operating system becomes a failure with a sentence, not a traceback."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader has gone: click ends quietly
                raise
            raise Failed(_sentence(error)) from error


def _sentence(error: OSError) -> str:
    if error.filename is None:
        return error.strerror or str(error)
    return f"{error.filename}: {error.strerror}"


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Options may stand before or behind the command words. Exit codes: 0 done, 1 failed, 2 usage, "
    "3 the daemon is not running, 4 configuration invalid or missing.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, wanted: _show_version(ctx, wanted=wanted),
    help="Show the version and exit.",
)
def cli() -> None:
    """A LAN gateway in userspace: run it, ask it, replay captures through it."""


def _show_version(ctx: click.Context, *, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"bridgectl {importlib.import_module('bridgectl.version').version()}")
        ctx.exit()


def main(arguments: Sequence[str] | None = None) -> None:
    """The program's entry point; exits with one of the public exit codes."""
    cli.main(args=None if arguments is None else list(arguments), prog_name="bridgectl")
