"""Demands of a gateway that runs, and not of a replay: keys, endpoints, peers, programs, a group.

Files are read, never changed. A private or pre-shared key that others may read is refused, as `ssh` does.
"""

from __future__ import annotations

import base64
import binascii
import grp
import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path

from bridge.config.errors import ConfigError
from bridge.config.files import open_to_read, status
from bridge.config.findings import Findings
from bridge.config.into_tunnel import read_key
from bridge.config.lists import reason
from bridge.config.model import Config, PeerTable
from bridge.config.toml_file import TomlFile
from bridge.config.toml_lines import KeyPath
from bridge.config.values import parse_endpoint
from tunnel.primitives import is_low_order, public_key, wipe
from tunnel.relay import same_id

_KEY_BYTES = 32
_LONGEST_SOCKET_PATH = 107  # sun_path has 108 bytes, with a final zero


def demand(config: Config, toml: TomlFile, findings: Findings) -> None:
    """Add everything that a running gateway lacks to the findings."""
    if not any(toml.has(name) for name in ("tap0", "tap1", "tun0")):
        findings.error((), "no port is configured, add [tap0] (a LAN gateway) or [tun0] (an exit node)")
    _default_node(config, toml, findings)
    _answers_to_visitors(config, findings)
    _own_key(config, toml, findings)
    for name, peer in config.peer.items():
        _peer(name, peer, toml, findings)
    _peers_apart(config, findings)
    _ids(config, findings)
    _relays(config, toml, findings)
    _fallbacks(config, toml, findings)
    _programs(config, findings)
    _control(config, findings)
    _user(config, findings)


def _answers_to_visitors(config: Config, findings: Findings) -> None:
    """Warn that answers follow the default route: a session from outside, as ssh, is lost at the start otherwise."""
    if config.tun0 is not None and config.tun0.default_route:
        what = "connections from outside to this machine's other addresses (ssh) end, their answers leave by tun0 too"
        findings.warn(("tun0", "default_route"), f"{what}: README, Limits, says how they keep their way")


def _default_node(config: Config, toml: TomlFile, findings: Findings) -> None:
    vpn = config.vpn
    if vpn is None:
        return
    if vpn.node is None:
        if not toml.has("vpn", "node") and toml.has("tap0"):  # an exit node needs no default node
            findings.error(("vpn",), '"node" is missing, add the name of the default node as node = "hk"')
        return
    if toml.has("vpn", "interface"):
        return  # the node is behind a plain device: it needs no tunnel
    if not toml.has("tunnel"):
        findings.error(("vpn",), "there is no [tunnel], add it with its private_key_file (or take [vpn] out)")
    if not toml.has("peer", vpn.node):
        findings.error(("vpn", "node"), f'"{vpn.node}" is no peer, add [peer.{vpn.node}] or name one that is there')


def _own_key(config: Config, toml: TomlFile, findings: Findings) -> None:
    if toml.has("peer") and not toml.has("tunnel"):
        findings.error(("peer",), "there is no [tunnel], add it with its private_key_file")
    if config.tunnel is None:
        return
    if config.tunnel.private_key_file is None:
        if not toml.has("tunnel", "private_key_file"):
            right = "name the file that `bridgectl genkey` wrote"
            findings.error(("tunnel",), f'"private_key_file" is missing, {right}')
    else:
        path = ("tunnel", "private_key_file")
        if not _is_key_itself(path, toml, findings):
            _key_file(path, config.tunnel.private_key_file, findings)
    if config.tunnel.name and toml.has("peer", config.tunnel.name):
        findings.error(("tunnel", "name"), f'"{config.tunnel.name}" is a peer\'s name too, give this node its own')


def _is_key_itself(path: tuple[str, ...], toml: TomlFile, findings: Findings) -> bool:
    """True where a key stands in place of its file's name; the error does not repeat it."""
    if not _is_key(str(toml.written(*path))):
        return False
    findings.error(path, "this is a key itself, put it into a file with mode 0600 and give the file's name")
    return True


def _key_file(path: KeyPath, file: Path, findings: Findings) -> None:
    """Demand a regular file with one key in base64 that nobody else may read."""
    try:
        with open(open_to_read(file), "rb") as opened:
            kind = os.fstat(opened.fileno()).st_mode
            text = opened.read(1024) if stat.S_ISREG(kind) else None
    except OSError as error:
        findings.error(path, f"{file}: {reason(error)}, name a key file that can be read")
        return
    if text is None:
        findings.error(path, f"{file} is no regular file, name a key file that can be read")
        return
    mode = stat.S_IMODE(kind)
    if mode & 0o077:
        findings.error(path, f"{file} has mode {mode:04o}, others may read the key: chmod 0600")
    if not _is_key(text.decode("ascii", "replace").strip()):
        findings.error(
            path, f"{file} holds no key, it is {_KEY_BYTES} bytes in base64 as `bridgectl genkey` writes them"
        )


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        return False


def _peer(name: str, peer: PeerTable, toml: TomlFile, findings: Findings) -> None:
    path = ("peer", name)
    if peer.public_key is None:
        if not toml.has("peer", name, "public_key"):
            findings.error(path, '"public_key" is missing, add what `bridgectl pubkey` prints at the peer')
    elif not _is_key(peer.public_key):
        what = f"this is no key, it is {_KEY_BYTES} bytes in base64 as `bridgectl pubkey` prints them"
        findings.error((*path, "public_key"), what)
    own = (*path, "preshared_key_file")
    if peer.preshared_key_file is not None and not _is_key_itself(own, toml, findings):
        _key_file(own, peer.preshared_key_file, findings)
    if peer.endpoint is not None and parse_endpoint(peer.endpoint) is None:
        findings.error((*path, "endpoint"), _endpoint_error(peer.endpoint))


def _endpoint_error(text: str) -> str:
    inside = text.rpartition(":")[0].strip("[]").lower()
    if inside.startswith("fe80:"):
        right = "give the global address, or leave it out and let the peer call"
        return f'"{text}" is link-local and names no device; {right}'
    if inside.startswith("::ffff:"):
        return f'"{text}" is an IPv4-mapped IPv6 address, write the IPv4 address'
    return f'"{text}" is no host and port, give them as "203.0.113.10:51820" or "[2001:db8::1]:51820"'


def _peers_apart(config: Config, findings: Findings) -> None:
    """Demand public keys that are different, possible and not our own: the tunnel refuses others. The bytes are
    compared, because base64 has four spellings of one key."""
    own = _own_public_key(config)
    taken: dict[bytes, str] = {}
    for name, peer in config.peer.items():
        if peer.public_key is None or not _is_key(peer.public_key):
            continue
        path: KeyPath = ("peer", name, "public_key")
        key = base64.b64decode(peer.public_key)
        first = taken.setdefault(key, name)
        if first != name:
            findings.error(path, f"this is the key of {first} too, each peer has its own")
        elif key == own:
            findings.error(path, "this is our own public key, give the peer's")
        elif is_low_order(key):
            findings.error(path, "this is a point of low order, which nobody has as a key: give the peer's")


def _own_public_key(config: Config) -> bytes | None:
    """The public key that belongs to the private key file; None where no key can be read from it."""
    if config.tunnel is None or config.tunnel.private_key_file is None:
        return None
    if not _is_file(config.tunnel.private_key_file):
        return None
    try:
        private = read_key(config.tunnel.private_key_file)
    except ConfigError:  # `_own_key` has reported it
        return None
    own = public_key(private)
    wipe(private)
    return own


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(status(path).st_mode)
    except (OSError, ValueError):
        return False


def _ids(config: Config, findings: Findings) -> None:
    """Demand names with different relay ids. Relays tell nodes apart by ids that are made of their names."""
    own = config.tunnel.name if config.tunnel is not None else None
    clash = same_id(config.peer if own is None or own in config.peer else [own, *config.peer])
    if clash is not None:
        path: KeyPath = ("tunnel", "name") if own in clash else ("peer", clash[1])
        findings.error(path, f'"{clash[0]}" and "{clash[1]}" have the same relay id, give one of them another name')


def _relays(config: Config, toml: TomlFile, findings: Findings) -> None:
    """Demand that `via` names a peer, and that following it ends at a peer that is reached directly."""
    for name, peer in config.peer.items():
        if peer.via is None:
            continue
        path: KeyPath = ("peer", name, "via")
        if config.tunnel is not None and not toml.has("tunnel", "name"):
            findings.error(path, "relays need a name of this node, add tunnel.name as its peers call it")
        if not toml.has("peer", peer.via):
            findings.error(path, f'"{peer.via}" is no peer, add [peer.{peer.via}] or name one that is there')
            continue
        if circle := _circle(name, lambda one: config.peer[one].via if one in config.peer else None):
            findings.error(path, f"{' via '.join(circle)} is a circle, one of them needs an endpoint instead")


def _fallbacks(config: Config, toml: TomlFile, findings: Findings) -> None:
    """Demand that `fallback` names another peer, and that following it never comes back."""
    for name, peer in config.peer.items():
        if peer.fallback is None:
            continue
        path: KeyPath = ("peer", name, "fallback")
        if peer.fallback == name:
            findings.error(path, f'"{name}" is this peer itself, name another one')
        elif not toml.has("peer", peer.fallback):
            what = f'"{peer.fallback}" is no peer, add [peer.{peer.fallback}] or name one that is there'
            findings.error(path, what)
        elif circle := _circle(name, lambda one: config.peer[one].fallback if one in config.peer else None):
            findings.error(path, f"{' falls back to '.join(circle)} is a circle, one of them needs no fallback")


def _circle(name: str, following: Callable[[str], str | None]) -> list[str]:
    """The names from `name` on until `name` comes again; an empty list where it never does."""
    chain = [name]
    after = following(name)
    while after is not None and after not in chain:
        chain.append(after)
        after = following(after)
    return [*chain, name] if after == name else []


def _programs(config: Config, findings: Findings) -> None:
    for key, program in (("up", config.hooks.up), ("down", config.hooks.down), ("lease", config.hooks.lease)):
        if program is None:
            continue
        if not _is_file(program):
            findings.error(("hooks", key), f"{program}: no such file, name a program")
        elif not os.access(program, os.X_OK) and not status(program).st_mode & 0o111:
            findings.error(("hooks", key), f"{program} is not executable, chmod +x it")


def _control(config: Config, findings: Findings) -> None:
    path_bytes = len(os.fsencode(config.control.socket))
    if path_bytes > _LONGEST_SOCKET_PATH:
        what = f"the path has {path_bytes} bytes, a socket's has at most {_LONGEST_SOCKET_PATH}: give a shorter one"
        findings.error(("control", "socket"), what)
    if config.control.group:
        try:
            grp.getgrnam(config.control.group)
        except KeyError:
            findings.error(("control", "group"), f'there is no group "{config.control.group}", name one or leave it ""')


def _user(config: Config, findings: Findings) -> None:
    if config.process.user:
        try:
            pwd.getpwnam(config.process.user)
        except KeyError:
            findings.error(("process", "user"), f'there is no user "{config.process.user}", name one or leave it ""')
