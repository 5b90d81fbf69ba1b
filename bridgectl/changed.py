"""The moves that changed prefix lists would make: the half of `route diff` that runs in `bridgectl`.

`bridgectl` reads the lists with the rights of the user who asks, and compares the tables. The daemon only hands out its
table and its flows, and keeps forwarding.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

from bridge.config.into_routes import routes_from
from bridge.config.load import Config, ConfigError
from bridge.control.answers.route import moves
from bridge.control.protocol import Document
from bridge.walk.forwarding.peer_prefixes import Announced
from bridgectl.errors import BadConfiguration
from bridgectl.offline import load_config, load_routes
from route.lists import parse_prefix
from route.table import Layer, RouteTable
from wire.units import address_int


def moves_of_configuration(path: Path, files: tuple[Path, ...]) -> Document:
    """Compare with the configuration's own lists. No flow is known."""
    config = load_config(path)
    return moves(load_routes(config), _with(config, files), [])


def moves_of_daemon(path: Path, files: tuple[Path, ...], table: Document, flows: list[dict[str, Any]]) -> Document:
    """Compare with the table that the daemon uses now, which may be older than its files, and count its flows. `table`
    and `flows`: answers of `route.table` and `flows`."""
    ends = (((flow["protocol"], flow["inside"], flow["outside"]), flow["outside"]) for flow in flows)
    announced = {
        peer: [parse_prefix(text) for text in prefixes] for peer, prefixes in table.get("announced", {}).items()
    }
    after = _with(load_config(path), files, announced)
    return moves(_table_of(table), after, ((flow, _address(outside)) for flow, outside in ends))


def _address(end: str) -> int:
    return address_int(end.rpartition(":")[0])


def _table_of(document: Document) -> RouteTable:
    """A table that decides as the daemon's does. `document`: an answer of `route.table`."""
    by_target: dict[str, list[tuple[int, int, int]]] = {}
    for text, target in document["entries"]:
        prefix = parse_prefix(text)
        by_target.setdefault(target, []).append((prefix.network, prefix.length, 0))
    return RouteTable(connected=[Layer(target, "", entries) for target, entries in by_target.items()])


def _with(config: Config, files: tuple[Path, ...], announced: Announced = MappingProxyType({})) -> RouteTable:
    """The configuration's table, with `files` in place of its own lists: each in place of the list of the same path or
    name, files of other names in place of all other offload lists."""
    nodes = {file.name: file for file in files if file.name in config.prefix_files.nodes.keys() | config.peer.keys()}
    left = [file for file in files if file not in nodes.values()]
    changed: dict[int, Path] = {}
    for stands_for in (_is_same, _has_same_name):  # two lists of one name are told apart by their folders
        for index, path in enumerate(config.offload.prefixes):
            file = next((file for file in left if stands_for(file, path)), None)
            if index not in changed and file is not None:
                changed[index] = file
                left.remove(file)
    if left:  # beside own lists that a file replaces, if there are any
        own = [*changed.values(), *left]
    else:
        own = [changed.get(index, path) for index, path in enumerate(config.offload.prefixes)]
    try:
        return routes_from(config, offload=own, nodes=nodes, announced=announced)
    except ConfigError as error:
        raise BadConfiguration(error.errors) from error


def _is_same(file: Path, path: Path) -> bool:
    return file.resolve() == path.resolve()


def _has_same_name(file: Path, path: Path) -> bool:
    return file.name == path.name
