"""A packet in words: `udp 192.168.200.3:5000 8.8.8.8:53`, `icmp A B`, `tcp A:p B:q flags=S`.

The result is a whole IP packet with correct checksums, as a host sends it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from wire import ipv4
from wire.checksum import checksum, pseudo_header_sum
from wire.units import address_int

FLAGS = {"F": 0x01, "S": 0x02, "R": 0x04, "P": 0x08, "A": 0x10, "U": 0x20, "E": 0x40, "W": 0x80, ".": 0x10}
_ECHO_REQUEST = 8
_LONGEST_PAYLOAD_BYTES = 65_000
_USAGE = "write udp A:PORT B:PORT, tcp A:PORT B:PORT [flags=S], icmp A B; also ttl=N, size=N, id=N, df=1"


def packet(words: Sequence[str]) -> bytes:
    """The IP packet of the words. Raises `ValueError` with a sentence about the error.

    `flags`: letters of FSRPAUEW and `.` for ACK. `size`: bytes of payload. `id`: the echo identifier of `icmp`, the
    IP identification else. `df`: 1 sets don't-fragment.
    """
    ends = [word for word in words[1:] if "=" not in word]
    settings = dict(word.split("=", 1) for word in words[1:] if "=" in word)
    if len(ends) != 2 or words[0] not in ("udp", "tcp", "icmp"):
        raise ValueError(_USAGE)
    known = {"ttl", "size", "id", "df"} | ({"flags"} if words[0] == "tcp" else set())
    unknown = sorted(settings.keys() - known)
    if unknown:
        raise ValueError(f"{unknown[0]}= is not known here; {_USAGE}")
    ttl = _number(settings, "ttl", 64, 255)
    identification = _number(settings, "id", 1, 0xFFFF)
    payload = bytes(_number(settings, "size", 0, _LONGEST_PAYLOAD_BYTES))
    flags = ipv4.DONT_FRAGMENT if _number(settings, "df", 0, 1) else 0
    if words[0] == "icmp":
        source, destination = (address_int(end) for end in ends)
        protocol = ipv4.ICMP
        body = _icmp(identification, payload)
    else:
        (source, source_port), (destination, destination_port) = (_endpoint(end) for end in ends)
        if words[0] == "udp":
            protocol = ipv4.UDP
            body = struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload
            check = checksum(body, pseudo_header_sum(source, destination, protocol, len(body))) or 0xFFFF
            body = body[:6] + check.to_bytes(2, "big") + body[8:]
        else:
            protocol = ipv4.TCP
            body = _tcp(source_port, destination_port, _tcp_flags(settings.get("flags", "S"))) + payload
            check = checksum(body, pseudo_header_sum(source, destination, protocol, len(body)))
            body = body[:16] + check.to_bytes(2, "big") + body[18:]
    return (
        ipv4.header(source, destination, protocol, len(body), ttl=ttl, identification=identification, flags=flags)
        + body
    )


def _icmp(identifier: int, payload: bytes) -> bytes:
    body = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, identifier, 1) + payload
    return body[:2] + checksum(body).to_bytes(2, "big") + body[4:]


def _tcp(source_port: int, destination_port: int, flags: int) -> bytes:
    acknowledgment = 1 if flags & FLAGS["A"] else 0
    return struct.pack("!HHIIBBHHH", source_port, destination_port, 1, acknowledgment, 5 << 4, flags, 65_535, 0, 0)


def _tcp_flags(text: str) -> int:
    flags = 0
    for letter in text:
        if letter.upper() not in FLAGS:
            raise ValueError(f"flags={text}: the letters are F, S, R, P, A (or .), U, E and W")
        flags |= FLAGS[letter.upper()]
    return flags


def _endpoint(text: str) -> tuple[int, int]:
    address, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} has no port; {_USAGE}")
    if not (port.isascii() and port.isdigit()) or int(port) > 0xFFFF:
        raise ValueError(f"{port!r} is no port: 0 to 65535")
    return address_int(address), int(port)


def _number(settings: dict[str, str], key: str, default: int, most: int) -> int:
    text = settings.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or int(text) > most:
        raise ValueError(f"{key}={text}: a number from 0 to {most}")
    return int(text)
