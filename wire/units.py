"""Units and the two spellings of an address: integers inside, dotted quads at the edges.

Time is an integer of nanoseconds everywhere below the command line (`now`, `_ns`); an IPv4 address is an unsigned
32-bit integer; a MAC address is `bytes` of length six.
"""

from __future__ import annotations

SECOND_NS = 1_000_000_000

_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")  # `int` takes signs and blanks too


def seconds_ns(seconds: float) -> int:
    """Seconds to nanoseconds, exact for whole seconds and rounded for fractions."""
    return round(seconds * SECOND_NS)


def earliest(one: int | None, other: int | None) -> int | None:
    """The earlier of two deadlines; None is one that never comes."""
    if one is None or other is None:
        return other if one is None else one
    return one if one < other else other


def address_text(address: int) -> str:
    """A 32-bit IPv4 address as a dotted quad."""
    return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


def address_int(text: str) -> int:
    """A strict dotted quad as a 32-bit integer. Raises `ValueError` unless it is four decimal octets without leading
    zeros."""
    octets = text.split(".")
    if len(octets) != 4:
        raise ValueError(f"{text!r} is no IPv4 address")
    value = 0
    for octet in octets:
        if not (octet.isascii() and octet.isdigit()) or (octet[0] == "0" and octet != "0") or len(octet) > 3:
            raise ValueError(f"{text!r} is no IPv4 address")
        number = int(octet)
        if number > 255:
            raise ValueError(f"{text!r} is no IPv4 address")
        value = value << 8 | number
    return value


def mac_text(mac: bytes) -> str:
    """Six bytes as `02:00:00:00:00:01`."""
    return mac.hex(":")


def mac_bytes(text: str) -> bytes:
    """`02:00:00:00:00:01` (or with dashes) as six bytes. Raises `ValueError` for any other text."""
    parts = text.replace("-", ":").split(":")
    if len(parts) != 6 or not all(1 <= len(part) <= 2 and set(part) <= _HEX_DIGITS for part in parts):
        raise ValueError(f"{text!r} is no MAC address")
    return bytes(int(part, 16) for part in parts)


def prefix_mask(length: int) -> int:
    """The netmask of a prefix length (0 to 32) as a 32-bit integer."""
    return (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF
