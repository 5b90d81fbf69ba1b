"""The route table of a configuration: its layers, with the line of the file that each prefix comes from.

The rules (order, ranges without effect) are in `route.table`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Interface
from pathlib import Path
from types import MappingProxyType

from bridge.config.errors import ConfigError
from bridge.config.lists import read_prefix_file, reason
from bridge.config.model import Config, Tap1Table
from bridge.walk.forwarding.peer_prefixes import Announced, announced_layers
from route.lists import Prefix, PrefixList
from route.table import LOCAL, TAP0, TAP1, TUN0, UNREACHABLE, Layer, RouteTable, vpn_target


def routes_from(
    config: Config,
    *,
    offload: Sequence[Path] | None = None,
    nodes: Mapping[str, Path] | None = None,
    announced: Announced = MappingProxyType({}),
) -> RouteTable:
    """The table of a configuration, with its prefix files as they were when it was read.

    `offload`: other lists in the place of `offload.prefixes`, `nodes`: other files in the place of nodes' route files.
    Both are read now (`bridgectl route diff FILE...`). Raises `ConfigError` where one of them has an error.
    """
    lists = config.prefix_files.offload if offload is None else _read(offload)
    changed = nodes or {}
    route_files = config.prefix_files.nodes | dict(zip(changed, _read(list(changed.values())), strict=True))
    default = vpn_target(config.default_node) if config.default_node else UNREACHABLE
    return RouteTable(
        connected=_connected(config, default),
        route_files=[_listed(_node(config, node), prefixes) for node, prefixes in sorted(route_files.items())],
        bypass=[_written(config, default, ("offload", "bypass"), config.offload.bypass)],
        allowed_ips=[
            # 0.0.0.0/0 says what a peer may send, not what is sent to it: that is the default node's
            _written(config, _node(config, name), ("peer", name, "allowed_ips"), peer.allowed_ips, shortest=1)
            for name, peer in config.peer.items()
        ],
        announced=announced_layers(config.peer, announced, has_tunnel=config.has_vpn),
        offload=[_listed(TAP1, prefixes) for prefixes in lists] if config.tap1 else [],
        default=default,
        edges=_edges(config),
    )


def _read(files: Sequence[Path]) -> list[PrefixList]:
    lists: list[PrefixList] = []
    errors: list[str] = []
    for file in files:
        try:
            lists.append(read_prefix_file(file))
        except OSError as error:
            errors.append(f"{file}:1: {reason(error)}, name a prefix list")
            continue
        errors += lists[-1].errors
    if errors:
        raise ConfigError(errors)
    return lists


def _node(config: Config, name: str) -> str:
    """The target of a node; `UNREACHABLE` where there is no tunnel."""
    return vpn_target(name) if config.has_vpn else UNREACHABLE


def _connected(config: Config, default: str) -> list[Layer]:
    """Our own addresses first, then the subnets, then `tap1.networks`.

    Only tun0's address belongs to this host; the rest of its subnet goes to the default node. An exit node has no
    default node: there the `allowed_ips` of the peers divide the subnet.
    """

    def layer(target: str, port: str, prefix: Prefix) -> Layer:
        return Layer(target, str(config.path), [(*prefix, config.line(port, "address"))])

    own: list[Layer] = []
    subnets: list[Layer] = []
    ports = ((TAP0, LOCAL, TAP0, config.tap0), (TAP1, LOCAL, TAP1, config.tap1), (TUN0, TUN0, default, config.tun0))
    for name, own_target, subnet_target, port in ports:
        if port is None or port.address is None:
            continue
        own.append(layer(own_target, name, Prefix(int(port.address.ip), 32)))
        if name == TUN0 and config.tap0 is None and config.default_node is None:
            continue
        subnet = port.address.network
        if isinstance(port, Tap1Table):
            subnet = port.neighbours or subnet
        subnets.append(layer(subnet_target, name, Prefix(int(subnet.network_address), subnet.prefixlen)))
    if config.vpn and config.vpn.address:
        own.append(layer(LOCAL, "vpn", Prefix(int(config.vpn.address), 32)))
    behind = [] if config.tap1 is None else [_written(config, TAP1, ("tap1", "networks"), config.tap1.networks)]
    return own + subnets + behind


def _listed(target: str, prefixes: PrefixList) -> Layer:
    return Layer(target, prefixes.name, prefixes.entries)


def _written(
    config: Config, target: str, path: tuple[str, ...], prefixes: Iterable[Prefix], *, shortest: int = 0
) -> Layer:
    """Prefixes that stand in the configuration file itself, each with its line."""
    entries = [
        (*prefix, config.line(*path, index)) for index, prefix in enumerate(prefixes) if prefix.length >= shortest
    ]
    return Layer(target, str(config.path), entries)


def subnet_edges(address: IPv4Interface) -> frozenset[int]:
    """Network and broadcast address of a connected subnet; none where it is too narrow to have them (RFC 3021)."""
    subnet = address.network
    if subnet.prefixlen > 30:
        return frozenset()
    return frozenset((int(subnet.network_address), int(subnet.broadcast_address)))


def _edges(config: Config) -> set[int]:
    """The edges of connected subnets, which are never forwarded (RFC 2644)."""
    addresses = [port.address for port in (config.tap0, config.tap1, config.tun0) if port is not None]
    return {edge for address in addresses if address is not None for edge in subnet_edges(address)}
