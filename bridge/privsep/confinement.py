"""The confinement of a started gateway by Landlock and seccomp, and the duties that it leaves to the warden
(docs/decisions/0032-what-the-kernel-still-does-for-us.md)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from bridge.config.model import Config
from bridge.privsep import landlock, seccomp
from bridge.privsep.order import RootDuties

log = logging.getLogger(__name__)


def confine(config: Config, socket_path: Path, made: Iterable[Path]) -> None:
    """Confine this process for good. It has one thread, and `no_new_privs` is set. `made`: folders that are removed at
    the end.

    Forwarding does not depend on it, so a refusal of the kernel is logged and no error.
    """
    try:
        if not landlock.confine(
            writing=[str(path) for path in kept_folders(config)],
            removing=[str(socket_path.parent)],
            folding=[str(folder.parent) for folder in made],
        ):
            log.info("this kernel has no Landlock: what the gateway may write is bounded by its user alone")
    except OSError as error:
        log.warning("Landlock is refused: %s", error.strerror)
    try:
        if not seccomp.confine():
            log.info("there is no %s: no system call is refused to the gateway", seccomp.LIBRARY)
    except OSError as error:
        log.warning("the seccomp filter is refused: %s", error.strerror)


def kept_folders(config: Config) -> list[Path]:
    """The folders in which a running gateway writes files of its own."""
    return [] if config.tunnel is None else [config.tunnel.state_file.parent]


def root_duties_for(config: Config, socket_path: Path, made: Iterable[Path]) -> RootDuties:
    """The files that the warden opens and removes for a gateway with this configuration: everything in the
    configuration's folder and the route folder, and files that are named elsewhere."""
    named = list(named_files(config))
    folders = [config.path.parent]
    if config.tunnel is not None and config.tunnel.routes is not None:
        folders.append(config.path.parent / config.tunnel.routes)
    return RootDuties(
        os.path.abspath(socket_path), list(map(os.path.abspath, made)), list(map(os.path.abspath, folders)), named
    )


def named_files(config: Config) -> Iterable[str]:
    """The absolute paths of the configuration and of every file that it names."""
    paths = [config.path, *(config.path.parent / path for path in config.offload.prefixes)]
    keys = [config.tunnel.private_key_file if config.tunnel is not None else None]
    keys += [peer.preshared_key_file for peer in config.peer.values()]
    paths += [*(path for path in keys if path is not None), *filter(None, (config.hooks.up, config.hooks.down))]
    return dict.fromkeys(map(os.path.abspath, paths))
