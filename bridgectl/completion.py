"""`bridgectl completion`: the shell's own completion of commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_BRIDGECTL_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    bash: eval "$(bridgectl completion bash)". zsh: eval "$(bridgectl completion zsh)". fish: bridgectl completion fish
    | source.
    """
    completion = get_completion_class(shell)
    assert completion is not None
    click.echo(completion(ctx.find_root().command, {}, "bridgectl", _VARIABLE).source())
