"""Reads files of wg-quick(8) and wg(8) into values.

`read` returns a `WgQuick` or raises `ConfigError` with all errors, `FILE:LINE: ...` each. It is as strict as `wg`, and
stricter where `wg` silently lets the last of several settings win. No message repeats a value that may be a key.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from bridge.config.errors import ConfigError
from bridge.config.values import is_node_name, parse_endpoint
from tunnel.primitives import KEY_BYTES

_INTERFACE = ("PrivateKey", "Address", "ListenPort", "DNS", "MTU", "Table", "FwMark", "SaveConfig")
_HOOKS = ("PreUp", "PostUp", "PreDown", "PostDown")
_PEER = ("PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive")
_KNOWN = {
    "Interface": {key.lower(): key for key in (*_INTERFACE, *_HOOKS)},
    "Peer": {key.lower(): key for key in _PEER},
}
_SECTIONS = {name.lower(): name for name in _KNOWN}
_SEVERAL = frozenset({"Address", "DNS", "AllowedIPs", *_HOOKS})  # may stand on many lines, or be empty
_LONGEST_NAME = 32  # in a comment: longer words may be keys
_NAME_LABEL = re.compile(r"(?:name|peer|client|friendly_name)\s*[:=]\s*", re.IGNORECASE)

HostAddress = IPv4Interface | IPv6Interface
AnyPrefix = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class WgPeer:
    """A `[Peer]`. `name`: the name in its comment, else "". `lines`: line numbers of its settings by key; "" is the
    header's."""

    name: str
    public_key: bytes
    preshared_key: bytes | None = field(repr=False)
    endpoint: str | None
    persistent_keepalive_s: int
    allowed_ips: tuple[AnyPrefix, ...]
    lines: dict[str, int] = field(compare=False)


@dataclass(frozen=True, slots=True)
class WgQuick:
    """A whole file. `addresses`: (line, address). `table`: "auto", "off" or another routing table. `listen_port`: None
    or 0 is any. `others`: DNS, FwMark, SaveConfig and hooks as (line, key, value). `lines`: line numbers of the
    settings of `[Interface]` by key; "" is the header's."""

    private_key: bytes = field(repr=False)
    addresses: tuple[tuple[int, HostAddress], ...]
    listen_port: int | None
    mtu: int | None
    table: str
    peers: tuple[WgPeer, ...]
    others: tuple[tuple[int, str, str], ...]
    lines: dict[str, int] = field(compare=False)


@dataclass(slots=True)
class _Section:
    name: str
    line: int
    comments: list[str]
    settings: list[tuple[int, str, str]] = field(default_factory=list)


def read(data: bytes, name: str) -> WgQuick:
    """Read a file. `name`: its name in messages. Raises `ConfigError` with all its errors."""
    reader = _Reader(name)
    return reader.read(data)


class _Reader:
    def __init__(self, name: str) -> None:
        self._name = name
        self._errors: list[tuple[int, str]] = []

    def read(self, data: bytes) -> WgQuick:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ConfigError([f"{self._name}:{line}: this is no UTF-8 text, a file of wg-quick is"]) from None
        sections = list(self._sections(text))
        interfaces = [section for section in sections if section.name == "Interface"]
        for extra in interfaces[1:]:
            self._error(extra.line, f"[Interface] stands on line {interfaces[0].line} already, join the two")
        peers = [self._peer(section) for section in sections if section.name == "Peer"]
        self._keys_apart(peers)
        found = None
        if interfaces:
            found = self._interface(interfaces[0], tuple(peer for peer in peers if peer is not None))
        else:
            self._error(1, "there is no [Interface], a file of wg-quick begins with it")
        if found is None or self._errors:
            raise ConfigError(f"{self._name}:{line}: {what}" for line, what in sorted(self._errors))
        return found

    def _error(self, line: int, what: str) -> None:
        self._errors.append((line, what))

    # Lines to sections

    def _sections(self, text: str) -> Iterator[_Section]:
        section: _Section | None = None
        is_known = True  # an unknown section is reported once, not line by line
        above: list[str] = []  # comments that end right above a header
        for number, raw in enumerate(text.split("\n"), start=1):
            said, hash_, comment = raw.partition("#")
            said, comment = said.strip(), comment.strip()
            if not said:
                above = [comment] if hash_ else []
                if hash_ and section is not None and not section.settings:
                    section.comments.append(comment)
                continue
            if said.startswith("["):
                known = _SECTIONS.get(said[1:-1].strip().lower()) if said.endswith("]") else None
                is_known = known is not None
                if section is not None:
                    yield section
                section = None
                if known is None:
                    self._error(number, f"{_shown(said)} is no section, known are [Interface] and [Peer]")
                else:
                    section = _Section(known, number, [*([comment] if hash_ else []), *above])
                above = []
                continue
            above = []
            if section is not None:
                self._setting(section, number, said)
            elif is_known:
                self._error(number, "this stands before [Interface], put it below")
                is_known = False
        if section is not None:
            yield section

    def _setting(self, section: _Section, number: int, said: str) -> None:
        key, equals, value = said.partition("=")
        known = _KNOWN[section.name].get(key.strip().lower())
        if known is None:
            what = f"{_shown(key.strip())} is no setting of [{section.name}]"
            self._error(number, f"{what}, known are {', '.join(_KNOWN[section.name].values())}")
        elif not equals:
            self._error(number, f"{known} has no value, write {known} = VALUE")
        else:
            section.settings.append((number, known, value.strip()))

    # Sections to values

    def _one(self, section: _Section, key: str) -> tuple[int, str] | None:
        found = [(number, value) for number, known, value in section.settings if known == key]
        for number, _ in found[1:]:
            self._error(number, f"{key} stands on line {found[0][0]} already, leave one")
        if not found:
            return None
        if not found[0][1]:
            self._error(found[0][0], f"{key} has no value, write {key} = VALUE")
            return None
        return found[0]

    def _all(self, section: _Section, key: str) -> Iterator[tuple[int, str]]:
        for number, known, value in section.settings:
            if known == key:
                for item in value.replace(",", " ").split():
                    yield number, item

    def _key(self, section: _Section, key: str) -> bytes | None:
        found = self._one(section, key)
        if found is None:
            return None
        decoded = decoded_key(found[1])
        if decoded is None:
            self._error(found[0], f"{key} is no key, it is {KEY_BYTES} bytes in base64 as `wg genkey` writes them")
        return decoded

    def _number(self, section: _Section, key: str, least: int, most: int) -> int | None:
        found = self._one(section, key)
        if found is None:
            return None
        number = _decimal(found[1])
        if number is None or not least <= number <= most:
            self._error(found[0], f"{key} = {_shown(found[1])} is no number from {least} to {most}")
            return None
        return number

    def _interface(self, section: _Section, peers: tuple[WgPeer, ...]) -> WgQuick | None:
        private = self._key(section, "PrivateKey")
        if private is None and not any(key == "PrivateKey" for _, key, _ in section.settings):
            self._error(section.line, '"PrivateKey" is missing, add it (a file that a hook names is not read)')
        addresses: list[tuple[int, HostAddress]] = []
        for number, item in self._all(section, "Address"):
            address = _address(item)
            if address is None:
                self._error(number, f'Address: {_shown(item)} is no address, give one as "10.0.0.2/24"')
            else:
                addresses.append((number, address))
        table = self._one(section, "Table")
        if table is not None and not re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", table[1]):
            self._error(table[0], f"Table = {_shown(table[1])} is no routing table, give auto, off or one's name")
        mark = self._one(section, "FwMark")
        if mark is not None and not _is_mark(mark[1]):
            self._error(mark[0], f"FwMark = {_shown(mark[1])} is no mark, give a number or off")
        keep = self._one(section, "SaveConfig")
        if keep is not None and keep[1].lower() not in ("true", "false"):
            self._error(keep[0], f"SaveConfig = {_shown(keep[1])} is neither true nor false")
        port = self._number(section, "ListenPort", 0, 65535)
        mtu = self._number(section, "MTU", 68, 65535)
        if private is None:
            return None
        told = ("DNS", "FwMark", "SaveConfig", *_HOOKS)
        return WgQuick(
            private_key=private,
            addresses=tuple(addresses),
            listen_port=port,
            mtu=mtu,
            table="auto" if table is None or table[1].lower() in ("auto", "main") else table[1].lower(),
            peers=peers,
            others=tuple(setting for setting in section.settings if setting[1] in told),
            lines=_lines_of(section),
        )

    def _peer(self, section: _Section) -> WgPeer | None:
        public = self._key(section, "PublicKey")
        if public is None and not any(key == "PublicKey" for _, key, _ in section.settings):
            self._error(section.line, '"PublicKey" is missing, each [Peer] has one')
        psk = self._key(section, "PresharedKey")
        allowed: list[AnyPrefix] = []
        for number, item in self._all(section, "AllowedIPs"):
            address = _address(item)
            if address is None:
                self._error(number, f'AllowedIPs: {_shown(item)} is no prefix, give one as "10.0.0.0/24"')
            else:
                allowed.append(address.network)  # host bits are cleared, as `wg` does
        endpoint = self._one(section, "Endpoint")
        if endpoint is not None and parse_endpoint(endpoint[1]) is None:
            right = 'give them as "203.0.113.10:51820"'
            self._error(endpoint[0], f"Endpoint = {_shown(endpoint[1])} is no host and port, {right}")
        pause = self._one(section, "PersistentKeepalive")
        keepalive_s = 0 if pause is None or pause[1].lower() == "off" else _decimal(pause[1])
        if pause is not None and (keepalive_s is None or keepalive_s > 65535):
            right = "give seconds from 0 to 65535, or off"
            self._error(pause[0], f"PersistentKeepalive = {_shown(pause[1])} is no time, {right}")
        if public is None:
            return None
        return WgPeer(
            name=next((name for comment in section.comments if (name := _name_in(comment))), ""),
            public_key=public,
            preshared_key=psk if psk is not None and any(psk) else None,  # zeros are none
            endpoint=None if endpoint is None else endpoint[1],
            persistent_keepalive_s=keepalive_s or 0,
            allowed_ips=tuple(dict.fromkeys(allowed)),
            lines=_lines_of(section),
        )

    def _keys_apart(self, peers: list[WgPeer | None]) -> None:
        taken: dict[bytes, int] = {}
        for peer in peers:
            if peer is None:
                continue
            line = peer.lines["PublicKey"]
            first = taken.setdefault(peer.public_key, line)
            if first != line:
                self._error(line, f"PublicKey is that of the peer on line {first} too, join the two")


def decoded_key(text: str) -> bytes | None:
    """The 32 bytes of a key in base64; None for any other text."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == KEY_BYTES else None


def _lines_of(section: _Section) -> dict[str, int]:
    lines = {"": section.line}
    for number, key, _ in section.settings:
        lines.setdefault(key, number)
    return lines


def _address(text: str) -> HostAddress | None:
    """An address with or without its prefix length; None for anything else, a netmask too."""
    address, slash, length = text.partition("/")
    if slash and _decimal(length) is None:
        return None
    try:
        return ipaddress.ip_interface(text if "%" not in address else "")
    except ValueError:
        return None


def _decimal(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def _is_mark(text: str) -> bool:
    if text.lower() == "off" or _decimal(text) is not None:
        return True
    return re.fullmatch(r"0[xX][0-9A-Fa-f]{1,8}", text) is not None


def _name_in(comment: str) -> str:
    """The name of a peer in a comment, "" where the comment is no name."""
    name = _NAME_LABEL.sub("", comment, count=1).strip()
    if len(name) > _LONGEST_NAME or not is_node_name(name) or name.lower() in _KNOWN["Peer"]:
        return ""
    try:
        IPv4Address(name)
    except ValueError:
        return name
    return ""


def _shown(text: str) -> str:
    """A word of the file for a message, "this" where it is long enough for a key."""
    return f'"{text}"' if len(text) <= _LONGEST_NAME else "this"
