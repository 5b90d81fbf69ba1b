"""The kinds of value in a configuration: each parses a TOML string or number into a value of the program.

A parser raises `ValueError` with "what is wrong, what is right"; `bridge.config.load` puts file and line in front.
Every parser takes any object, because TOML may hold any type under any key.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface, IPv6Address
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, ValidationInfo

from bridge.config.errors import without_keys
from route.lists import Prefix, parse_prefix
from wire.units import address_int, mac_bytes

MINIMUM_MTU = 68  # RFC 791 3.2: every internet module must forward 68 bytes without fragmenting
MAXIMUM_TUN_MTU = 65535
MAXIMUM_TAP_MTU = 65521  # the kernel takes the 14 bytes of the Ethernet header off
_LONGEST_INTERFACE_NAME = 15  # IFNAMSIZ with its final zero is 16
_LONGEST_NODE_NAME = 64
LONGEST_TIMER_S = 2**31 - 1

_LONGEST_OPTION = 255  # bytes of one field of a DHCP message
_CLIENTS_OWN = frozenset((*range(50, 55), *range(57, 60)))
_WITH_A_KEY = {12: "hostname", 60: "vendor_class", 61: "client_id"}

_NODE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
"""A host name that the resolver takes, underscores too: names of containers and of dynamic DNS have them."""


class HostPort(NamedTuple):
    """A TCP or UDP port of one IPv4 address, written `192.168.200.3:80`. `address` is a 32-bit integer."""

    address: int
    port: int


def _string(value: object, example: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f'{without_keys(repr(value)):.40} is no string, give one as "{example}"')
    return value


def _port_number(text: str) -> int | None:
    """A port from 1 to 65535 in plain digits; None for anything else."""
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or not 1 <= int(text) <= 65535:
        return None
    return int(text)


def _interface_address(value: object) -> IPv4Interface:
    text = _string(value, "192.168.200.2/24")
    address, slash, length = text.partition("/")
    right = 'give an address with its prefix length, as "192.168.200.2/24"'
    if not slash:
        raise ValueError(f'"{text}" has no prefix length, {right}')
    try:
        number = address_int(address)
    except ValueError:
        raise ValueError(f'"{text}" is no IPv4 address, {right}') from None
    if not (length.isascii() and length.isdigit()) or len(length) > 2 or int(length) > 32:
        raise ValueError(f'"/{length}" is no prefix length, it goes from /0 to /32: {right}')
    return IPv4Interface((number, int(length)))


def _offload_address(value: object) -> IPv4Interface | None:
    return None if value == "dhcp" else _interface_address(value)


def _dhcp_text(value: object) -> bytes:
    text = _string(value, "gateway")
    if len(text) > _LONGEST_OPTION or not all("!" <= letter <= "~" for letter in text):
        raise ValueError(
            f'"{without_keys(text):.40}" is no name for a server: 1 to {_LONGEST_OPTION} letters of ASCII, no blanks'
        )
    return text.encode("ascii")


def _dhcp_bytes(value: object) -> bytes:
    """The bytes of an option: hexadecimal digits behind 0x, else the text itself in UTF-8."""
    text = _string(value, "0x0a0b")
    data = text.encode()
    if text.startswith("0x"):
        try:
            data = bytes.fromhex(text[2:])
        except ValueError:
            raise ValueError(
                f'"{without_keys(text):.40}" has no even number of hexadecimal digits, give bytes as "0x0a0b"'
            ) from None
    if len(data) > _LONGEST_OPTION:
        raise ValueError(f"this has {len(data)} bytes, an option has at most {_LONGEST_OPTION}")
    return data


def _client_id(value: object) -> bytes:
    data = _dhcp_bytes(value)
    if len(data) == 1:
        raise ValueError('a client identifier has at least two bytes, give it as "0x01aabb" or a longer text')
    return data


def _option_code(value: object) -> int:
    text = _string(value, "77")
    code = int(text) if text.isascii() and text.isdigit() and len(text) <= 3 else 0
    if not 1 <= code <= 254 or text != str(code):
        raise ValueError(f'"{without_keys(text):.40}" is no option\'s number, they go from "1" to "254"')
    if code in _CLIENTS_OWN:
        raise ValueError(f"option {code} is the client's own, which it sends where it is due: take it out")
    if code in _WITH_A_KEY:
        raise ValueError(f"option {code} has a key of its own, {_WITH_A_KEY[code]}: give it there")
    return code


def _address(value: object) -> IPv4Address:
    text = _string(value, "192.168.1.1")
    try:
        return IPv4Address(address_int(text))
    except ValueError:
        raise ValueError(f'"{text}" is no IPv4 address, give one as "192.168.1.1", without a prefix length') from None


def _address_number(value: object) -> int:
    return int(_address(value))


def _mac(value: object) -> bytes:
    text = _string(value, "02:00:00:00:c8:02")
    try:
        mac = mac_bytes(text)
    except ValueError:
        raise ValueError(f'"{text}" is no MAC address, give six bytes, as "02:00:00:00:c8:02"') from None
    if mac[0] & 1:
        raise ValueError(f'"{text}" is a group address, a station has an even first byte, as "02:00:00:00:c8:02"')
    if not any(mac):
        raise ValueError(f'"{text}" is no station\'s address, give one as "02:00:00:00:c8:02"')
    return mac


def _prefix(value: object) -> Prefix:
    return parse_prefix(_string(value, "203.0.113.0/24"))


def _host_port(value: object) -> HostPort:
    text = _string(value, "192.168.200.3:80")
    address, _, port_text = text.rpartition(":")
    port = _port_number(port_text)
    try:
        number = address_int(address)
    except ValueError:
        number = None
    if number is None or port is None:
        raise ValueError(f'"{text}" is no address and port, give them as "192.168.200.3:80", the port from 1 to 65535')
    return HostPort(number, port)


def _metrics(value: object) -> str:
    text = _string(value, "127.0.0.1:9586")
    if text and parse_endpoint(text) is None:
        raise ValueError(f'"{text}" is no host and port, give them as "127.0.0.1:9586", or "" for none')
    return text


def _interface_name(value: object) -> str:
    text = _string(value, "tap0")
    if not text or len(text.encode()) > _LONGEST_INTERFACE_NAME:
        raise ValueError(f'"{text}" is no interface name, it has 1 to {_LONGEST_INTERFACE_NAME} bytes')
    if text in {".", ".."} or not text.isprintable() or any(c.isspace() or c in "/:%" for c in text):
        raise ValueError(f'"{text}" is no interface name, leave out spaces, "/", ":" and "%"')
    return text


def _namespace(value: object) -> str:
    text = _string(value, "lan")
    if text in {"", ".", ".."} or "/" in text or not text.isprintable():
        raise ValueError(f'"{text}" is no network namespace, give its name as `ip netns` lists it')
    return text


def _path(value: object, info: ValidationInfo) -> Path:
    text = _string(value, "private.key")
    if not text or "\0" in text:
        raise ValueError('"" is no path, name a file (paths are relative to this file)')
    directory: Path = info.context["directory"] if info.context else Path()
    return directory / text


def _absolute_path(value: object, info: ValidationInfo) -> Path:
    return _path(value, info).absolute()


def _optional_file(value: object, info: ValidationInfo) -> Path | Literal[""]:
    return "" if value == "" else _absolute_path(value, info)


def _node_name(value: object) -> str:
    text = _string(value, "hk")
    if not is_node_name(text):
        raise ValueError(
            f'"{text}" is no node name, it has 1 to {_LONGEST_NODE_NAME} letters, digits, "_", "-" and "."'
            " and begins with a letter, a digit or a _"
        )
    return text


def is_node_name(text: str) -> bool:
    """True for a text that may name a node. The name becomes part of a port name, a file name and a relay id."""
    return len(text) <= _LONGEST_NODE_NAME and _NODE_NAME.fullmatch(text) is not None


def parse_endpoint(text: str) -> tuple[str, int] | None:
    """Host and port of `203.0.113.10:51820`, `node.example:51820` or `[2001:db8::1]:51820`; None for another form."""
    host, _, port_text = text.rpartition(":")
    port = _port_number(port_text)
    if port is None:
        return None
    if host.startswith("[") and host.endswith("]"):
        try:
            return (host[1:-1], port) if may_be_a_peer(IPv6Address(host[1:-1])) else None
        except ValueError:
            return None
    if re.fullmatch(r"[0-9.]+", host):  # it must be an address: no top-level domain is a number
        try:
            address_int(host)
        except ValueError:
            return None
        return host, port
    return (host, port) if len(host) <= 253 and _HOST_NAME.fullmatch(host) else None


def may_be_a_peer(address: IPv6Address) -> bool:
    """True for an IPv6 address that a peer can have: not link-local, which needs a device, and not an IPv4-mapped
    one."""
    wrong = (address.is_link_local, address.is_multicast, address.is_unspecified, address.ipv4_mapped is not None)
    return not any(wrong) and address.scope_id is None


InterfaceAddress = Annotated[IPv4Interface, BeforeValidator(_interface_address)]
OffloadAddress = Annotated[IPv4Interface | None, BeforeValidator(_offload_address)]
"""An `InterfaceAddress`, or None for one that DHCP brings."""
OptionText = Annotated[bytes, BeforeValidator(_dhcp_text)]
"""The text of a DHCP option in ASCII; b"" for an option that is not sent."""
OptionBytes = Annotated[bytes, BeforeValidator(_dhcp_bytes)]
OptionCode = Annotated[int, BeforeValidator(_option_code)]
ClientId = Annotated[bytes, BeforeValidator(_client_id)]
Address = Annotated[IPv4Address, BeforeValidator(_address)]
AddressNumber = Annotated[int, BeforeValidator(_address_number)]
Mac = Annotated[bytes, BeforeValidator(_mac)]
PrefixValue = Annotated[Prefix, BeforeValidator(_prefix)]
InsideEndpoint = Annotated[HostPort, BeforeValidator(_host_port)]
MetricsAddress = Annotated[str, BeforeValidator(_metrics)]
InterfaceName = Annotated[str, BeforeValidator(_interface_name)]
NamespaceName = Annotated[str, BeforeValidator(_namespace)]
NodeName = Annotated[str, BeforeValidator(_node_name)]
PathAsWritten = Annotated[Path, BeforeValidator(_path)]
"""A path relative to the configuration file, spelled as the operator spelled both: messages show it."""
AbsolutePath = Annotated[Path, BeforeValidator(_absolute_path)]
OptionalFile = Annotated[Path | Literal[""], BeforeValidator(_optional_file)]
"""An `AbsolutePath`, or "" for none."""
PortNumber = Annotated[int, Field(ge=1, le=65535)]
ArpTimeout = Annotated[int, Field(ge=1, le=86_400)]
Threads = Annotated[int, Field(ge=1, le=64)]
TapMtu = Annotated[int, Field(ge=MINIMUM_MTU, le=MAXIMUM_TAP_MTU)]
TunMtu = Annotated[int, Field(ge=MINIMUM_MTU, le=MAXIMUM_TUN_MTU)]
