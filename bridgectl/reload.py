"""`bridgectl reload`: read configuration and lists again."""

from __future__ import annotations

import click

from bridgectl.daemon import ask
from bridgectl.options import Options, shared
from bridgectl.output import show
from bridgectl.route import moved


@click.command()
@click.option("--dry-run", is_flag=True, help="List the changes, change nothing.")
@click.option("--force", is_flag=True, help="Take lists that are bad, empty or halved, too.")
@shared()
def command(options: Options, dry_run: bool, force: bool) -> None:
    """Read configuration and lists again, and use them at once.

    Flows that still go the same way live on. An invalid configuration changes nothing (exit code 4), nor does a list
    with bad lines, an empty one, or one with fewer than half of its former prefixes. With --force such a list is taken;
    of a bad one the lines that can be read.
    """
    document = ask(options, "reload", {"dry_run": dry_run, "force": force})
    for warning in document.get("warnings", ()):
        click.echo(warning, err=True)
    show(document, as_json=options.json, people=moved if dry_run else lambda _: ["reloaded"])
