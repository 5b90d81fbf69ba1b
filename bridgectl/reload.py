"""`bridgectl reload`: read configuration and lists again."""

from __future__ import annotations

import click

from bridgectl.daemon import ask
from bridgectl.options import Options, shared
from bridgectl.output import show
from bridgectl.route import moved


@click.command()
@click.option("--dry-run", is_flag=True, help="List what would change, change nothing.")
@shared()
def command(options: Options, dry_run: bool) -> None:
    """Take new prefixes, routes, peers and forwards at once.

    Flows that are still decided the same live on. A configuration that is invalid changes nothing (exit code 4).
    """
    document = ask(options, "reload", {"dry_run": dry_run})
    for warning in document.get("warnings", ()):
        click.echo(warning, err=True)
    show(document, as_json=options.json, people=moved if dry_run else lambda _: ["reloaded"])
