"""What a gateway that stands may still do, and have done for it: Landlock, the seccomp filter, the warden's part
(docs/decisions/0032-what-the-kernel-still-does-for-us.md)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from bridge.config.keys import files_named, folders_named, folders_written
from bridge.config.model import Config
from bridge.privsep import landlock, seccomp
from bridge.privsep.order import Keeper

log = logging.getLogger(__name__)


def confine(config: Config, socket_path: Path, made: Iterable[Path]) -> None:
    """Confine this process for good; it has one thread, and `no_new_privs` is set. Nothing of it is needed to forward,
    so what the kernel refuses is told and no error. `made`: folders that are removed at the end."""
    try:
        if not landlock.confine(
            writing=[str(path) for path in folders_written(config)],
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


def keeper_for(config: Config, socket_path: Path, made: Iterable[Path]) -> Keeper:
    """What the warden may open and remove for a gateway with this configuration: all in the configuration's folder and
    the route folder, and what is named elsewhere."""
    return Keeper(
        os.path.abspath(socket_path),
        list(map(os.path.abspath, made)),
        list(map(os.path.abspath, folders_named(config))),
        list(dict.fromkeys(map(os.path.abspath, files_named(config)))),
    )
