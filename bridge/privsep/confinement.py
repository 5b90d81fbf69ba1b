"""The confinement of a started gateway by Landlock and seccomp, and the duties that it leaves to the warden
(docs/decisions/0032-what-the-kernel-still-does-for-us.md)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from bridge.config.keys import files_named, folders_named, folders_written
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


def root_duties_for(config: Config, socket_path: Path, made: Iterable[Path]) -> RootDuties:
    """The files that the warden opens and removes for a gateway with this configuration: everything in the
    configuration's folder and the route folder, and files that are named elsewhere."""
    return RootDuties(
        os.path.abspath(socket_path),
        list(map(os.path.abspath, made)),
        list(map(os.path.abspath, folders_named(config))),
        list(dict.fromkeys(map(os.path.abspath, files_named(config)))),
    )
