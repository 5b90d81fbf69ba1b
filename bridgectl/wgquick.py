"""`bridgectl import` and `bridgectl export`: from and to a file of wg-quick(8).

Keys go into new files with mode 0600, which nobody else could read at any moment. A key is printed only with `-o -`.
All files are put in place together, or none is.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import click

from bridgectl.errors import BadConfiguration, Failed
from bridgectl.options import DEFAULT_CONFIG

_LONGEST_FILE_BYTES = 1 << 20

_config = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    metavar="FILE",
    help=f"The configuration file; default: {DEFAULT_CONFIG}.",
)
_force = click.option("--force", is_flag=True, help="Replace existing files.")


def _lan(ctx: click.Context, param: click.Parameter, value: str | None) -> IPv4Interface | None:
    if value is None:
        return None
    try:
        lan = IPv4Interface(value)
    except ValueError:
        lan = None
    if lan is None or "/" not in value:
        raise click.BadParameter("give an address with its prefix length, as 192.168.200.2/24", ctx, param)
    return lan


@click.command("import")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True))
@_config
@click.option(
    "--lan", metavar="ADDRESS/LENGTH", callback=_lan, help="Be the gateway of a LAN, with this address on tap0."
)
@_force
def import_(source: Path, config: Path, lan: IPv4Interface | None, force: bool) -> None:
    """Make a configuration from a file of wg-quick.

    The keys go into files beside it (private.key, NAME.psk; mode 0600). Settings without a counterpart are listed with
    file and line. Nothing is written if `bridgectl check` would refuse the result.
    """
    from bridge.config import load as configuration  # noqa: PLC0415 - pydantic, not for `bridgectl --help`
    from bridge.config.errors import ConfigError  # noqa: PLC0415 - the same
    from bridge.config.wgquick.importing import imported  # noqa: PLC0415 - the same
    from bridge.config.wgquick.reading import read  # noqa: PLC0415 - the same

    name = "stdin" if str(source) == "-" else "".join(c if c.isprintable() else "?" for c in str(source))
    try:
        made = imported(read(_bytes(source), name), name, lan)
    except ConfigError as error:
        raise BadConfiguration(error.errors) from None
    files = {config.parent / file: content for file, content in made.files.items()}
    if config in files:
        raise click.UsageError(f"{config} is the name of a key file, call the configuration otherwise")
    files[config] = (made.text().encode(), 0o644)
    if not force:
        _demand_absent(files)
    with _folder(config.parent), tempfile.TemporaryDirectory(prefix=".import-", dir=config.parent) as folder:
        new = {path: Path(folder) / path.name for path in files}
        for path, (content, mode) in files.items():
            _write_new(new[path], content, mode)
        try:
            warnings = configuration.read(made.text(Path(folder).absolute()), config, "check").warnings
        except ConfigError as error:
            raise BadConfiguration(made.traced(error.errors, config)) from None
        _put_in_place(new, force=force)
    for notice in [*made.notices, *warnings]:
        click.echo(notice, err=True)
    click.echo(f"{config} is written, with {', '.join(sorted(made.files))} beside it.")


@click.command("export")
@_config
@click.option(
    "-o", "--output", metavar="FILE|-", required=True, help="The file to write, new and with mode 0600; - prints it."
)
@click.option("--peer", metavar="NAME", help="Only this peer.")
@click.option("--for-peer", metavar="NAME", help="Write the file that this peer needs, not ours.")
@click.option("--endpoint", metavar="HOST[:PORT]", help="With --for-peer: our address, as the peer reaches it.")
@_force
def export(
    config: Path, output: str, peer: str | None, for_peer: str | None, endpoint: str | None, force: bool
) -> None:
    """Write a file of wg-quick from the configuration.

    It holds the private key (with --for-peer the pre-shared key), so it gets mode 0600; `-o -` prints it. Settings
    without a counterpart are listed with file and line.
    """
    from bridge.config.errors import ConfigError  # noqa: PLC0415 - the same
    from bridge.config.wgquick import exporting as wgquick_export  # noqa: PLC0415 - pydantic, not for `bridgectl --help`
    from bridgectl.offline import load_config  # noqa: PLC0415 - the same

    if peer is not None and for_peer is not None:
        raise click.UsageError("--peer and --for-peer are for two different files")
    if endpoint is not None and for_peer is None:
        raise click.UsageError("--endpoint goes with --for-peer")
    loaded = load_config(config, "check")
    if loaded.tunnel is None:
        raise BadConfiguration([f"{config}:1: there is no [tunnel], so there is nothing to export"])
    for name in (peer, for_peer):
        if name is not None and name not in loaded.peer:
            known = ", ".join(loaded.peer) or "none"
            raise click.UsageError(f"there is no peer {name!r:.80}, there are: {known}")
    try:
        if for_peer is not None:
            made = wgquick_export.for_peer(loaded, for_peer, _endpoint(endpoint, loaded.tunnel.listen_port))
        else:
            made = wgquick_export.exported(loaded, peer)
    except ConfigError as error:
        raise BadConfiguration(error.errors) from None
    for notice in made.notices:
        click.echo(notice, err=True)
    if output == "-":
        _warn_of_readers()
        click.echo(made.text, nl=False)
        return
    path = Path(output)
    if not force:
        _demand_absent({path: None})
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        new = Path(folder) / path.name
        _write_new(new, made.text.encode(), 0o600)
        _put_in_place({path: new}, force=force)


def _endpoint(text: str | None, default_port: int) -> str | None:
    from bridge.config.values import parse_endpoint  # noqa: PLC0415 - pydantic

    if text is None:
        return None
    for full in (text, f"{text}:{default_port}"):
        if parse_endpoint(full) is not None:
            return full
    raise click.UsageError(f"--endpoint {text!r:.80} is no host, give it as 203.0.113.10, node.example or with :PORT")


def _bytes(source: Path) -> bytes:
    """The content of the file, at most one byte more than a file may have."""
    if str(source) == "-":
        data = sys.stdin.buffer.read(_LONGEST_FILE_BYTES + 1)
    else:
        try:
            with source.open("rb") as file:
                data = file.read(_LONGEST_FILE_BYTES + 1)
                mode = os.fstat(file.fileno()).st_mode
                if stat.S_ISREG(mode) and mode & 0o077:
                    click.echo(f"{source}:1: others may read the keys in this file: chmod 0600, or remove it", err=True)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise BadConfiguration([f"{source}:1: {why}, name a file of wg-quick"]) from None
    if len(data) > _LONGEST_FILE_BYTES:
        raise BadConfiguration([f"{source}:1: this has more than {_LONGEST_FILE_BYTES} bytes, no file of wg-quick has"])
    return data


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make the configuration's folder where it is missing; remove it again if the block fails."""
    made = not path.is_dir()
    if made:
        path.mkdir()
    try:
        yield
    except BaseException:
        if made:
            with suppress(OSError):
                path.rmdir()
        raise


def _demand_absent(files: Mapping[Path, Any]) -> None:
    there = [str(path) for path in files if os.path.lexists(path)]
    if there:
        raise Failed(f"nothing is written, there already: {', '.join(sorted(there))}; --force replaces")


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a new file that has its mode from the first moment on."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(new: Mapping[Path, Path], *, force: bool) -> None:
    """Give every file its own name. Without `force` no existing file is replaced, not even one made meanwhile."""
    done: list[Path] = []
    try:
        for path, made in new.items():
            if force:
                made.replace(path)
            else:
                path.hardlink_to(made)
                done.append(path)
    except FileExistsError as error:
        for path in done:
            with suppress(OSError):
                path.unlink()
        raise Failed(f"nothing is written, there already: {error.filename2}; --force replaces") from error


def _warn_of_readers() -> None:
    try:
        mode = os.fstat(sys.stdout.fileno()).st_mode
    except (OSError, ValueError):
        return  # not a file at all
    if stat.S_ISREG(mode) and mode & 0o077:
        click.echo("Warning: others can read this file; set the mode to 600, and the umask to 077 first.", err=True)
