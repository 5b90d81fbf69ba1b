"""The tunnel's peers and keys as the room `tunnel` takes them, read from the configuration and its key files.

Keys are read into bytearrays and overwritten once the tunnel has them. Nothing here puts one into a message.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterable
from ipaddress import IPv6Address
from pathlib import Path
from typing import NamedTuple

from bridge.config.errors import ConfigError
from bridge.config.files import open_to_read
from bridge.config.into_routes import subnet_edges
from bridge.config.lists import reason
from bridge.config.model import Config
from bridge.config.values import may_be_a_peer, parse_endpoint
from route.lists import Prefix
from route.table import NEVER_FORWARDED
from tunnel.effects import NO_ROLE, Endpoint, Network, Networks, PeerConfig, Role
from tunnel.primitives import KEY_BYTES, wipe

_LONGEST_FILE_BYTES = 1024
_DIGITS = {
    digit: value for value, digit in enumerate(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
}

NamedEndpoint = tuple[str, int]


class Peers(NamedTuple):
    """The peers that the tunnel serves. `names`: by peer, the endpoints that are host names and must be looked up.
    `networks`: the prefixes that we announce, and those that no peer may announce."""

    configs: tuple[PeerConfig, ...]
    names: dict[str, NamedEndpoint]
    networks: Networks = Networks()
    role: Role = NO_ROLE

    def wipe(self) -> None:
        """Overwrite the pre-shared keys, once the tunnel has taken them."""
        for peer in self.configs:
            if isinstance(peer.psk, bytearray):
                wipe(peer.psk)


def has_tunnel(config: Config) -> bool:
    """True where the `vpn` ports are the tunnel's: there are keys, and no plain device in their place."""
    return config.tunnel is not None and config.has_vpn and (config.vpn is None or config.vpn.interface is None)


def served(config: Config) -> list[str]:
    """The names of the peers that the tunnel serves."""
    return list(config.peer) if has_tunnel(config) else []


def peers_from(config: Config) -> Peers:
    """Read everything that `Tunnel.set_peers` needs; `ConfigError` where a key file changed since it was checked."""
    configs: list[PeerConfig] = []
    names: dict[str, NamedEndpoint] = {}
    for name in served(config):
        peer = config.peer[name]
        assert peer.public_key is not None, "`run` demands a public key"
        endpoint: Endpoint | None = None
        where = parse_endpoint(peer.endpoint) if peer.endpoint and peer.via is None else None
        if where is not None:
            address = address_of(where[0])
            if address is None:
                names[name] = where
            else:
                endpoint = Endpoint(address, where[1])
        configs.append(
            PeerConfig(
                name,
                base64.b64decode(peer.public_key),
                _networks(peer.allowed_ips),
                endpoint,
                bytearray(KEY_BYTES) if peer.preshared_key_file is None else read_key(peer.preshared_key_file),
                peer.persistent_keepalive,
                _networks(peer.accept),
                peer.via or "",
            )
        )
    tunnel = config.tunnel
    role = NO_ROLE if tunnel is None else Role(tunnel.name or "", tunnel.relay)
    return Peers(tuple(configs), names, networks_from(config), role)


def networks_from(config: Config) -> Networks:
    """The prefixes that we announce, and those that peers must not announce.

    In tun0's subnet that is only our own address and the edges: where tun0 has the whole tunnel's subnet, the rest
    belongs to the peers.
    """
    own: list[Prefix] = []
    for port in (config.tap0, config.tap1):
        if port is not None and port.address is not None:
            own.append(Prefix(int(port.address.network.network_address), port.address.network.prefixlen))
    if config.tap1 is not None:
        subnet = config.tap1.neighbours
        if subnet is not None and config.tap1.address is not None and subnet != config.tap1.address.network:
            own.append(Prefix(int(subnet.network_address), subnet.prefixlen))
        own += config.tap1.networks
    if config.tun0 is not None:
        own += [
            Prefix(address, 32) for address in (int(config.tun0.address.ip), *sorted(subnet_edges(config.tun0.address)))
        ]
    if config.vpn is not None and config.vpn.address is not None:
        own.append(Prefix(int(config.vpn.address), 32))
    return Networks(_networks(config.announced), _networks(own), _networks(NEVER_FORWARDED))


def prefix_of(network: Network) -> Prefix:
    """A network of the room `tunnel` as a prefix of the room `route`."""
    return Prefix(network.network, network.length)


def _networks(prefixes: Iterable[Prefix]) -> tuple[Network, ...]:
    return tuple(Network(prefix.network, prefix.length) for prefix in prefixes)


def address_of(host: str) -> bytes | None:
    """The 4 or 16 bytes of an address that a peer can have; None for a name and for other addresses
    (`may_be_a_peer`)."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            packed = socket.inet_pton(family, host)
        except OSError:
            continue
        return packed if family == socket.AF_INET or may_be_a_peer(IPv6Address(packed)) else None
    return None


def endpoint_text(endpoint: Endpoint) -> str:
    """`203.0.113.10:51820` or `[2001:db8::1]:51820`."""
    if len(endpoint.address) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, endpoint.address)}:{endpoint.port}"
    return f"[{socket.inet_ntop(socket.AF_INET6, endpoint.address)}]:{endpoint.port}"


def read_key(path: Path) -> bytearray:
    """The key in a file, 32 bytes in base64 as `bridgectl genkey` writes it. The caller overwrites it after use.

    Raises `ConfigError` where the file cannot be read or holds no key. No `bytes` object, which nobody could overwrite,
    ever holds the text or the key.
    """
    text = bytearray(_LONGEST_FILE_BYTES)
    try:
        with open(open_to_read(path), "rb", buffering=0) as file:
            size = file.readinto(text) or 0
        key = _decoded(memoryview(text)[:size])
    except OSError as error:
        raise ConfigError([f"{path}:1: {reason(error)}, name a key file that can be read"]) from None
    finally:
        wipe(text)
    if key is None:
        raise ConfigError([f"{path}:1: this is no key, it is {KEY_BYTES} bytes in base64 as `bridgectl genkey` writes"])
    return key


def _decoded(text: Iterable[int]) -> bytearray | None:
    key = bytearray(KEY_BYTES)
    gathered = bits = size = 0
    for digit in text:
        value = _DIGITS.get(digit)
        if value is None:  # padding, and the end of the line
            continue
        gathered = (gathered << 6 | value) & 0xFFFF
        bits += 6
        if bits >= 8:
            bits -= 8
            if size < KEY_BYTES:
                key[size] = gathered >> bits & 0xFF
            size += 1
    return key if size == KEY_BYTES else None
