"""Makes files of wg-quick(8) from a configuration: this machine's own, or the file that a peer needs.

The text holds the private key or a pre-shared key, so the caller writes it into a file that nobody else can read. Every
setting that WireGuard cannot express is reported in `notices`, a line each.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from bridge.config.into_tunnel import read_key
from bridge.config.model import Config, PeerTable, TomlTable
from bridge.config.toml_file import dotted
from bridge.config.words import InWgQuick, NotInATunnel, word_of
from route.lists import Prefix
from route.table import PRIVATE
from tunnel.noise import LocalKeys
from tunnel.primitives import wipe

_EVERYTHING = Prefix(0, 0)
_HALVES = frozenset({Prefix(0, 1), Prefix(1 << 31, 1)})
_MTU_BYTES = 1420  # wg-quick's own default on a path of 1500 bytes


@dataclass(frozen=True, slots=True)
class Exported:
    """`text` holds keys. `notices`: `FILE:LINE: ... has no counterpart ...`, a line each."""

    text: str = field(repr=False)
    notices: tuple[str, ...]


def exported(config: Config, only: str | None = None) -> Exported:
    """The file that makes this machine the same WireGuard peer. `only`: the one peer to keep; None: all.

    Raises `ConfigError` where a key file cannot be read.
    """
    assert config.tunnel is not None
    assert config.tunnel.private_key_file is not None, "`check` demands a key file"
    lines = [f"# Made from {_printable(config.path)} by `bridgectl export`.", "[Interface]"]
    lines.append(f"PrivateKey = {_key_text(config.tunnel.private_key_file)}")
    lines += _settings("Address", [str(config.tun0.address)] if config.tun0 else [])
    lines += _settings("Address", [f"{config.vpn.address}/32"] if config.vpn and config.vpn.address else [])
    lines.append(f"ListenPort = {config.tunnel.listen_port}")
    lines += _mtu(config)
    names = [only] if only is not None else list(config.peer)
    if any(_takes_everything(config.peer[name]) for name in names) and not (config.tun0 and config.tun0.default_route):
        lines.append("Table = off")
    taken: set[Prefix] = set()
    notices = list(_without_counterpart(config, names))
    for name in names:
        peer = config.peer[name]
        lines += ["", "[Peer]", f"# {name}", f"PublicKey = {peer.public_key}"]
        if peer.preshared_key_file is not None:
            lines.append(f"PresharedKey = {_key_text(peer.preshared_key_file)}")
        lines += _settings("Endpoint", [peer.endpoint] if peer.endpoint else [])
        prefixes = [prefix for prefix in peer.allowed_ips if prefix not in taken]
        for prefix in set(peer.allowed_ips) & taken:
            what = f"{prefix} stays with the peer that names it first, WireGuard gives a prefix to one peer"
            notices.append(f"{config.source('peer', name, 'allowed_ips')}: {what}")
        taken |= set(prefixes)
        lines += _settings("AllowedIPs", [str(prefix) for prefix in _without_private(config, name, prefixes)])
        lines += _settings("PersistentKeepalive", [str(peer.persistent_keepalive)] if peer.persistent_keepalive else [])
    return Exported("".join(f"{line}\n" for line in lines), tuple(notices))


def for_peer(config: Config, name: str, endpoint: str | None) -> Exported:
    """The file for the peer called `name`. `endpoint`: our own as the peer sees it, `HOST:PORT`; None: unknown.

    We do not know the peer's private key: a comment takes its place. AllowedIPs are our own addresses inside of the
    tunnel, a LAN that is not aliased, and everything where we are an exit node. Raises `ConfigError` where a key file
    cannot be read.
    """
    assert config.tunnel is not None
    assert config.tunnel.private_key_file is not None, "`check` demands a key file"
    peer = config.peer[name]
    lines = [f"# Made from {_printable(config.path)} by `bridgectl export --for-peer {name}`."]
    lines += ["[Interface]", f"# PrivateKey = the one that belongs to {peer.public_key}"]
    hosts = [str(prefix) for prefix in peer.allowed_ips if prefix.length == 32]
    lines += _settings("Address", hosts)
    if not hosts:
        lines.append("# Address = its own, out of what we take from it: the AllowedIPs that we have for it")
    if peer.endpoint is not None:
        lines.append(f"ListenPort = {peer.endpoint.rpartition(':')[2]}")
    lines += _mtu(config)
    private = read_key(config.tunnel.private_key_file)
    local = LocalKeys(private)
    lines += ["", "[Peer]", f"# {config.tunnel.name or 'gateway'}"]
    lines.append(f"PublicKey = {base64.b64encode(local.public).decode()}")
    local.wipe()
    wipe(private)
    if peer.preshared_key_file is not None:
        lines.append(f"PresharedKey = {_key_text(peer.preshared_key_file)}")
    lines += _settings("Endpoint", [endpoint] if endpoint else [])
    lines += _settings("AllowedIPs", list(_behind_us(config)))
    if peer.endpoint is None:
        lines.append("# PersistentKeepalive = 25, where it is behind a NAT and must be reachable for us")
    notices = []
    if endpoint is None and peer.endpoint is None:
        what = "neither end knows where the other is: give ours by --endpoint HOST:PORT"
        notices.append(f"{config.source('peer', name)}: {what}")
    return Exported("".join(f"{line}\n" for line in lines), tuple(notices))


def _printable(path: Path) -> str:
    """A path for a comment: a line break in it becomes a question mark."""
    return "".join(c if c.isprintable() else "?" for c in str(path))


def _settings(key: str, values: list[str]) -> list[str]:
    return [f"{key} = {', '.join(values)}"] if values else []


def _mtu(config: Config) -> list[str]:
    return _settings("MTU", [str(config.vpn.mtu)] if config.vpn and config.vpn.mtu != _MTU_BYTES else [])


def _key_text(path: Path) -> str:
    key = read_key(path)
    try:
        return base64.b64encode(key).decode()
    finally:
        wipe(key)


def _takes_everything(peer: PeerTable) -> bool:
    return _EVERYTHING in peer.allowed_ips or _HALVES.issubset(peer.allowed_ips)


def _without_private(config: Config, name: str, prefixes: list[Prefix]) -> list[Prefix]:
    """The prefixes without private ranges that a shorter prefix of the same peer holds: WireGuard needs none of them,
    unless another peer's prefix lies between."""
    kept = []
    for prefix in prefixes:
        if prefix not in PRIVATE:
            kept.append(prefix)
            continue
        around = [
            (other.length, peer != name, peer)
            for peer, known in config.peer.items()
            for other in known.allowed_ips
            if other != prefix and other.holds(prefix)
        ]
        if not around or max(around)[2] != name:
            kept.append(prefix)
    return kept


def _behind_us(config: Config) -> Iterator[str]:
    if config.tap0 is None and (config.vpn is None or config.vpn.node is None):
        yield str(_EVERYTHING)
        return
    if config.tun0 is not None:
        yield f"{config.tun0.address.ip}/32"
    if config.vpn is not None and config.vpn.address is not None:
        yield f"{config.vpn.address}/32"
    elif config.tap0 is not None:
        yield str(IPv4Network(config.tap0.address.network))


def _without_counterpart(config: Config, names: list[str]) -> Iterator[str]:
    """A notice for each setting of the configuration that a file of wg-quick cannot say."""
    for table, known in Config.model_fields.items():
        if table not in config.model_fields_set or table == "peer" or word_of(known, NotInATunnel):
            continue
        if word_of(known, InWgQuick) is None:
            yield f"{config.source(table)}: [{table}] has no counterpart in a file of wg-quick"
            continue
        for key in _lost(getattr(config, table)):
            yield f"{config.source(table, key)}: {table}.{key} has no counterpart in a file of wg-quick"
    for name in names:
        for key in _lost(config.peer[name]):
            where = dotted(("peer", name, key))
            yield f"{config.source('peer', name, key)}: {where} has no counterpart in a file of wg-quick"
    for node, prefixes in config.prefix_files.nodes.items():
        if node in names and prefixes.entries:
            yield f"{prefixes.name}:1: routes of {node} have no counterpart: WireGuard routes by AllowedIPs alone"


def _lost(table: TomlTable) -> list[str]:
    """The keys of a table that are written and that a file of wg-quick cannot say, in order of the alphabet."""
    fields = type(table).model_fields
    return sorted(key for key in table.model_fields_set if word_of(fields[key], InWgQuick) is None)
