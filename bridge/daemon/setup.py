"""The files of a configuration, read: what a start and each reload begin with."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from bridge.config import load as config
from bridge.config.into_routes import routes_from
from bridge.config.into_tunnel import Peers, peers_from, served
from bridge.config.load import Config, ListsFor
from route.table import RouteTable, node_of

log = logging.getLogger(__name__)


class StartFailed(Exception):
    """The gateway cannot start; the message tells the operator why."""


class Setup(NamedTuple):
    """All that the files say. `unreached`: nodes that no peer leads to; packets for them are answered with ICMP 3/1.

    `peers` holds keys: a setup that is not used has to be wiped (`peers.wipe`).
    """

    config: Config
    routes: RouteTable
    unreached: set[str]
    peers: Peers


def read_setup(path: Path, lists_for: ListsFor | None = None) -> Setup:
    """Read the configuration and all its lists. `lists_for`: makes the reader of lists; None: it knows no copies.

    Raises `ConfigError` with every error of all files.
    """
    loaded = config.load(path, "run") if lists_for is None else config.load(path, "run", lists_for)
    routes = routes_from(loaded)
    nodes = {node for total in routes.summary() if (node := node_of(total["target"])) is not None}
    nodes |= {peer.fallback for peer in loaded.peer.values() if peer.fallback is not None}
    if loaded.vpn is not None and loaded.vpn.interface is not None and loaded.vpn.node is not None:
        nodes.discard(loaded.vpn.node)
    return Setup(loaded, routes, nodes.difference(served(loaded)), peers_from(loaded))


def warn(setup: Setup) -> None:
    """Log what an operator should know of these files."""
    for warning in setup.config.warnings:
        log.warning("%s", warning)
    if setup.unreached:
        nodes = ", ".join(sorted(setup.unreached))
        log.warning("nothing leads to %s: packets for it are answered with ICMP 3/1 (host unreachable)", nodes)
