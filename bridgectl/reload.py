"""`bridgectl reload`: read configuration and lists again."""

from __future__ import annotations

import click

from bridgectl.daemon import ask
from bridgectl.options import Options, shared
from bridgectl.output import show
from bridgectl.route import moved


@click.command()
@click.option("--dry-run", is_flag=True, help="List the changes, change nothing.")
@shared()
def command(options: Options, dry_run: bool) -> None:
    """Read configuration and lists again, and use them at once.

    Flows that still go the same way live on. An invalid configuration changes nothing (exit code 4).
    """
    document = ask(options, "reload", {"dry_run": dry_run})
    for warning in document.get("warnings", ()):
        click.echo(warning, err=True)
    show(document, as_json=options.json, people=moved if dry_run else lambda _: ["reloaded"])
