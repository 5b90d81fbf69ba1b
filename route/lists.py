"""Prefix lists as text: one IPv4 prefix a line, `#` comments, blank lines, either line ending. A bare address is a /32.

The caller reads the file; text comes in with the name that messages show. Duplicates stay in the list: the table takes
the first one.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from wire.units import address_text, prefix_mask

MOST_ERRORS: Final = 10
"""Lines of one list that are told to be wrong; the rest is counted. A list of another kind is wrong in every line."""

_RIGHT = "give a prefix as 203.0.113.0/24"

# Numbers by spelling: a look-up takes half the time of `int`, and refuses signs, blanks and leading zeros.
_OCTETS = {str(number): number for number in range(256)}
_LENGTHS = {f"/{length}": length for length in range(33)} | {"": 32}
_HOST_MASKS = [prefix_mask(length) ^ 0xFFFFFFFF for length in range(33)]

_LOOKS_LIKE_IPV6 = re.compile(r"[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:/\d*)?")


class Prefix(NamedTuple):
    """An IPv4 prefix: `network` is a 32-bit integer without host bits, `length` is 0 to 32."""

    network: int
    length: int

    def __str__(self) -> str:
        return f"{address_text(self.network)}/{self.length}"

    def holds(self, other: Prefix) -> bool:
        """True where every address of `other` is one of this prefix."""
        return self.length <= other.length and other.network & ~_HOST_MASKS[self.length] == self.network


class PrefixList(NamedTuple):
    """The entries of one list. `name`: of the list in messages and sources. `entries`: (network, length, line) in the
    order of the text, duplicates included. `errors`: `NAME:LINE: what is wrong, what is right`, of the first
    `MOST_ERRORS` lines that are wrong, and how many more there are."""

    name: str
    entries: list[tuple[int, int, int]]
    errors: list[str]


def parse_prefix(text: str) -> Prefix:
    """The prefix that `text` spells. Raises `ValueError` with the words what is wrong and what is right."""
    spelled = _spelled(text)
    if spelled is None:
        raise ValueError(_what_is_wrong(text))
    network, length = spelled
    if network & _HOST_MASKS[length]:
        raise ValueError(_host_bits(text, network, length))
    return Prefix(network, length)


def _spelled(text: str) -> tuple[int, int] | None:
    """Network and length as they are spelled, host bits too; None where `text` is no prefix."""
    address, slash, length_text = text.partition("/")
    try:
        a, b, c, d = address.split(".")
        network = _OCTETS[a] << 24 | _OCTETS[b] << 16 | _OCTETS[c] << 8 | _OCTETS[d]
        return network, _LENGTHS[slash + length_text]
    except (KeyError, ValueError):
        return None


def parse_prefixes(text: str, name: str) -> PrefixList:
    """All prefixes of a list, and errors for other lines. 10,000 lines take about 10 ms, whatever stands in them."""
    entries: list[tuple[int, int, int]] = []
    errors: list[str] = []
    wrong = untold_from = 0
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        spelled = _spelled(words)
        if spelled is not None and not spelled[0] & _HOST_MASKS[spelled[1]]:
            entries.append((*spelled, number))
            continue
        wrong += 1
        if wrong <= MOST_ERRORS:
            what = _what_is_wrong(words) if spelled is None else _host_bits(words, *spelled)
            errors.append(f"{name}:{number}: {what}")
        elif not untold_from:
            untold_from = number
    if untold_from:
        errors.append(f"{name}:{untold_from}: and {wrong - MOST_ERRORS} lines from here on are no prefix, {_RIGHT}")
    return PrefixList(name, entries, errors)


def _host_bits(text: str, network: int, length: int) -> str:
    right = Prefix(network & ~_HOST_MASKS[length], length)
    return f'"{text}" has host bits set, {right} is the prefix and {text.partition("/")[0]}/32 the host'


def _what_is_wrong(text: str) -> str:
    """Why `text` is no prefix, for the person who wrote it."""
    shown = text if len(text) <= 60 else text[:57] + "..."
    if _LOOKS_LIKE_IPV6.fullmatch(text):
        return f'"{shown}" is IPv6, only IPv4 prefixes are carried: take it out'
    if len(text.split()) > 1:
        return f'"{shown}" is more than a prefix, give one a line and comments after a #'
    address, slash, length_text = text.partition("/")
    octets = address.split(".")
    if len(octets) != 4 or not all(octet.isascii() and octet.isdigit() for octet in octets):
        return f'"{shown}" is no IPv4 prefix, {_RIGHT}'
    for octet in octets:
        if octet not in _OCTETS:
            why = "has a leading zero" if octet.startswith("0") else "is above 255"
            return f'"{shown}" has an octet that {why} ({octet[:20]}), {_RIGHT}'
    return f'"{shown}" has no prefix length from 0 to 32 after the slash ("{(slash + length_text)[:20]}"), {_RIGHT}'
