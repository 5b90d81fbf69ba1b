"""Makes a configuration from a file of wg-quick, and reports the settings that have no counterpart.

| the file | the configuration |
|---|---|
| a peer takes 0.0.0.0/0, or there is one peer and it has an Endpoint | a host: `[tun0]` with the Address, `[vpn]` |
| the same with `lan` given | a LAN gateway: `[tap0]`, the Address as alias of the LAN's hosts, `[vpn]` |
| any other | an exit node, or one of a mesh: `[tun0]`, peers by their allowed_ips, no default node |

Keys are put into files beside the configuration. The caller writes all files; no function here touches a disk.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from bridge.config.errors import ConfigError
from bridge.config.toml_file import dotted
from bridge.config.values import parse_endpoint
from bridge.config.wgquick.reading import WgPeer, WgQuick
from route.table import PRIVATE
from tunnel.noise import LocalKeys, RemoteKeys

PRIVATE_KEY_FILE = "private.key"
UP_HOOK = "up.sh"
EVERYTHING = IPv4Network("0.0.0.0/0")
_HALVES = frozenset({IPv4Network("0.0.0.0/1"), IPv4Network("128.0.0.0/1")})
_PRIVATE = tuple(IPv4Network(str(prefix)) for prefix in PRIVATE)
_MARK = "\0"  # around the name of a file, until its folder is known; no value holds it
_FILE = re.compile(f"{_MARK}([^{_MARK}]*){_MARK}")


@dataclass(slots=True)
class Imported:
    """A configuration that was made. `lines`: each with the line of the source that it came from. `files`: content and
    mode of the files beside it, by name. `notices`: `FILE:LINE: ... is not taken over: ...`."""

    name: str
    lines: list[tuple[str, int]]
    files: dict[str, tuple[bytes, int]] = field(repr=False)
    notices: list[str]

    def text(self, folder: Path = Path()) -> str:
        """The configuration as TOML, with its files in a folder (relative: to the configuration)."""
        return "".join(f"{_FILE.sub(lambda found: _quoted(str(folder / found[1])), line)}\n" for line, _ in self.lines)

    def traced(self, errors: Iterable[str], path: Path) -> list[str]:
        """Faults of the configuration at `path` as errors of the file that it was made from."""
        begin = re.compile(rf"{re.escape(str(path))}:(\d+):")
        return [begin.sub(lambda found: f"{self.name}:{self.lines[int(found[1]) - 1][1]}:", error) for error in errors]


class _Writer:
    def __init__(self, source: WgQuick, name: str) -> None:
        self.source = source
        self._name = name
        self._told: list[tuple[int, str]] = []
        self.lines: list[tuple[str, int]] = []
        self.files: dict[str, tuple[bytes, int]] = {}

    def put(self, text: str, line: int = 1) -> None:
        self.lines.append((text, line))

    def leave(self, line: int, what: str, why: str) -> None:
        self._told.append((line, f"{what} is not taken over: {why}"))

    def tell(self, line: int, what: str) -> None:
        self._told.append((line, what))

    def key_file(self, name: str, key: bytes) -> str:
        self.files[name] = (base64.b64encode(key) + b"\n", 0o600)
        return f"{_MARK}{name}{_MARK}"

    def done(self) -> Imported:
        notices = [f"{self._name}:{line}: {what}" for line, what in sorted(self._told, key=lambda told: told[0])]
        return Imported(self._name, self.lines, self.files, notices)


def imported(source: WgQuick, name: str, lan: IPv4Interface | None = None) -> Imported:
    """The configuration for a file called `name`. `lan`: our address on a LAN whose gateway we shall be; None: a host.

    Raises `ConfigError` where keys or addresses cannot be used.
    """
    writer = _Writer(source, name)
    _demand(source, name)
    peers = _named(source.peers)
    allowed = _allowed(writer, peers)
    node = _default_node(peers, allowed)
    if lan is not None and node is None and peers:
        node = next((peer for peer in peers if peers[peer].endpoint), next(iter(peers)))
        what = "no peer takes everything, and [vpn] needs a default node: it gets what nothing else names"
        writer.tell(peers[node].lines[""], f"{node} becomes vpn.node: {what}")
    mine, line = _own_address(writer)
    takes_all = node is not None and _takes_everything(allowed[node])
    routes_wanted = source.table == "auto"
    if not routes_wanted and source.table != "off":
        why = "routes are put into no other table than the main one; tun0.default_route stays false"
        writer.leave(source.lines["Table"], f"Table = {source.table}", why)
    writer.put(f"# Made from {name} by `bridgectl import`.")
    if lan is None:
        _host(writer, mine, line, default_route=takes_all and routes_wanted)
    else:
        _lan(writer, lan)
    if node is not None or source.mtu is not None:
        _vpn(writer, node, mine if lan is not None else None, line)
    if lan is None and routes_wanted and not takes_all:
        _routes(writer, mine, peers, allowed)
    _tunnel(writer)
    private = _implied_private(allowed)
    for peer_name, peer in peers.items():
        _peer(writer, peer_name, peer, allowed[peer_name], private.get(peer_name, []))
    _others(writer)
    return writer.done()


def _demand(source: WgQuick, name: str) -> None:
    """Raise `ConfigError` where an address is missing or a public key cannot be a peer's."""
    errors: list[tuple[int, str]] = []
    if not any(isinstance(address, IPv4Interface) for _, address in source.addresses):
        line = source.lines.get("Address", source.lines[""])
        errors.append((line, 'there is no IPv4 address, add the one inside of the tunnel as Address = "10.0.0.2/24"'))
    local = LocalKeys(source.private_key)
    for peer in source.peers:
        line = peer.lines["PublicKey"]
        if peer.public_key == local.public:
            errors.append((line, "PublicKey is the one of [Interface]'s own PrivateKey, give the peer's"))
            continue
        try:
            RemoteKeys(local, peer.public_key).wipe()
        except ValueError as error:
            errors.append((line, f"PublicKey: {error}, no peer can have it"))
    local.wipe()
    if errors:
        raise ConfigError(f"{name}:{line}: {what}" for line, what in sorted(errors))


def _named(peers: tuple[WgPeer, ...]) -> dict[str, WgPeer]:
    """The peers by the names in their comments. A peer without a name, or with a taken one, gets a number."""
    wanted = {peer.name for peer in peers}
    named: dict[str, WgPeer] = {}
    number = 0
    for peer in peers:
        name = peer.name
        while not name or name in named:
            number += 1
            name = f"peer{number}"
            if name in wanted:
                name = ""
        named[name] = peer
    return named


def _allowed(writer: _Writer, peers: dict[str, WgPeer]) -> dict[str, list[IPv4Network]]:
    """IPv4 prefixes by peer. The later of two peers with the same prefix gets it, as with WireGuard."""
    owner = {prefix: name for name, peer in peers.items() for prefix in peer.allowed_ips}
    allowed: dict[str, list[IPv4Network]] = {}
    for name, peer in peers.items():
        line = peer.lines.get("AllowedIPs", peer.lines[""])
        allowed[name] = []
        ipv6 = []
        for prefix in peer.allowed_ips:
            if not isinstance(prefix, IPv4Network):
                ipv6.append(str(prefix))
            elif owner[prefix] != name:
                writer.leave(line, f"{prefix}", f"{owner[prefix]}, a later peer, names it too and gets it")
            else:
                allowed[name].append(prefix)
        if ipv6:
            why = "the tunnel carries no IPv6, so IPv6 packets of this machine leave past the tunnel"
            writer.leave(line, ", ".join(ipv6), f"{why}: disable IPv6 (net.ipv6.conf.all.disable_ipv6) if it must not")
    return allowed


def _takes_everything(prefixes: list[IPv4Network]) -> bool:
    return EVERYTHING in prefixes or _HALVES.issubset(prefixes)


def _default_node(peers: dict[str, WgPeer], allowed: dict[str, list[IPv4Network]]) -> str | None:
    for name, prefixes in allowed.items():
        if _takes_everything(prefixes):
            return name
    if len(peers) == 1:
        name, only = next(iter(peers.items()))
        return name if only.endpoint else None
    return None


def _own_address(writer: _Writer) -> tuple[IPv4Interface, int]:
    usable = [(line, address) for line, address in writer.source.addresses if isinstance(address, IPv4Interface)]
    for line, address in writer.source.addresses:
        if not isinstance(address, IPv4Interface):
            writer.leave(line, f"Address {address}", "the gateway carries no IPv6")
    for line, address in usable[1:]:
        why = f"one address of ours is inside the tunnel, and {usable[0][1]} comes first"
        writer.leave(line, f"Address {address}", why)
    line, mine = usable[0]
    return mine, line


# Tables


def _host(writer: _Writer, mine: IPv4Interface, line: int, *, default_route: bool) -> None:
    writer.put("")
    writer.put("[tun0]", line)
    writer.put(f'address = "{mine}"', line)
    if default_route:
        writer.put("default_route = true", line)


def _lan(writer: _Writer, lan: IPv4Interface) -> None:
    writer.put("")
    writer.put("[tap0]")
    writer.put(f'address = "{lan}"')
    writer.put('# bridge = "br0"                      # the Linux bridge of the LAN\'s NIC: name yours')
    writer.tell(1, f'tap0 has {lan}; add its bridge = "..." to the configuration, the LAN\'s NIC must be in it')
    writer.tell(
        1, "this machine's own traffic does not use the tunnel: add [tun0] with an address of its own if it should"
    )


def _vpn(writer: _Writer, node: str | None, alias: IPv4Interface | None, line: int) -> None:
    writer.put("")
    writer.put("[vpn]", line)
    if alias is not None:
        writer.put(f'address = "{alias.ip}"               # what the LAN\'s hosts are seen as', line)
    if writer.source.mtu is not None:
        writer.put(f"mtu = {writer.source.mtu}", writer.source.lines["MTU"])
    if node is not None:
        writer.put(f'node = "{node}"', line)


def _routes(
    writer: _Writer, mine: IPv4Interface, peers: dict[str, WgPeer], allowed: dict[str, list[IPv4Network]]
) -> None:
    """Write a hook with this machine's routes to the peers' networks, which wg-quick makes by itself."""
    wanted = sorted({prefix for prefixes in allowed.values() for prefix in prefixes if prefix != EVERYTHING})
    wanted = [prefix for prefix in wanted if not prefix.subnet_of(mine.network)]
    if not wanted:
        return
    for name, peer in peers.items():
        host, _ = parse_endpoint(peer.endpoint or "") or ("", 0)
        around = [prefix for prefix in wanted if _is_address(host) and IPv4Address(host) in prefix]
        if around:
            what = f"the endpoint of {name} lies in {around[0]}, whose route leads into the tunnel"
            writer.tell(peer.lines["Endpoint"], f"{what}: give {host} a route of its own, or take it out of AllowedIPs")
    script = "#!/bin/sh\n# The kernel's routes into the tunnel; they are gone with the device.\nset -e\n"
    script += "".join(f'ip route replace {prefix} dev "$INTERFACE"\n' for prefix in wanted)
    writer.files[UP_HOOK] = (script.encode(), 0o755)
    writer.put("")
    writer.put("[hooks]")
    writer.put(f"up = {_MARK}{UP_HOOK}{_MARK}                          # the routes that wg-quick makes of AllowedIPs")


def _is_address(host: str) -> bool:
    return host.count(".") == 3 and host.replace(".", "").isdigit()


def _tunnel(writer: _Writer) -> None:
    source = writer.source
    writer.put("")
    writer.put("[tunnel]")
    writer.put(
        f"private_key_file = {writer.key_file(PRIVATE_KEY_FILE, source.private_key)}", source.lines["PrivateKey"]
    )
    if source.listen_port:
        writer.put(f"listen_port = {source.listen_port}", source.lines["ListenPort"])


def _peer(writer: _Writer, name: str, peer: WgPeer, prefixes: list[IPv4Network], private: list[IPv4Network]) -> None:
    line = peer.lines[""]
    writer.put("")
    writer.put(f"[{dotted(('peer', name))}]", line)
    writer.put(f'public_key = "{base64.b64encode(peer.public_key).decode()}"', peer.lines["PublicKey"])
    if peer.preshared_key is not None:
        file = writer.key_file(f"{name}.psk", peer.preshared_key)
        writer.put(f"preshared_key_file = {file}", peer.lines["PresharedKey"])
    if peer.endpoint is not None:
        writer.put(f'endpoint = "{peer.endpoint}"', peer.lines["Endpoint"])
    if peer.persistent_keepalive_s:
        writer.put(f"persistent_keepalive = {peer.persistent_keepalive_s}", peer.lines["PersistentKeepalive"])
    line = peer.lines.get("AllowedIPs", line)
    written = ", ".join(f'"{prefix}"' for prefix in prefixes)
    if not private:
        writer.put(f"allowed_ips = [{written}]", line)
        return
    writer.put("allowed_ips = [", line)
    writer.put(f"    {written},", line)
    writer.put("    # private ranges, which go nowhere unless a peer names them", line)
    writer.put("    " + ", ".join(f'"{one}"' for one in private) + ",", line)
    writer.put("]", line)


def _implied_private(allowed: dict[str, list[IPv4Network]]) -> dict[str, list[IPv4Network]]:
    """By peer, the private ranges that WireGuard sends to it by a shorter prefix. Our table needs them by name."""
    implied: dict[str, list[IPv4Network]] = {}
    for one in _PRIVATE:
        around = [(prefix, name) for name, prefixes in allowed.items() for prefix in prefixes if one.subnet_of(prefix)]
        longest, name = max(around, key=lambda held: held[0].prefixlen, default=(one, ""))
        if longest != one:
            implied.setdefault(name, []).append(one)
    return implied


def _others(writer: _Writer) -> None:
    hook = "put what it does into a program and name it in [hooks]"
    for line, key, value in writer.source.others:
        if key == "DNS" and value:
            why = "let a hook set this machine's resolvers, as [hooks] up: resolvectl dns tun0 ADDRESS"
            writer.leave(line, key, why)
        elif key == "FwMark" and value.lower() not in ("off", "0", "0x0"):
            why = "sealed packets carry no mark, with tun0.default_route they leave by the device of the default route"
            writer.leave(line, key, f"{why} that was there before")
        elif key == "SaveConfig" and value.lower() == "true":
            writer.leave(line, key, "the configuration is never written by the gateway, `bridgectl export` does")
        elif key in ("PreUp", "PostUp"):
            writer.leave(line, key, f"{hook} up, which runs once all ports are up")
        elif key in ("PreDown", "PostDown"):
            writer.leave(line, key, f"{hook} down, which runs before the ports go")


def _quoted(text: str) -> str:
    """A TOML string. JSON's are the same but for DEL, which TOML escapes."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
