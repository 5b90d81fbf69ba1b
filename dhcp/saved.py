"""The lease on disk: bytes and back, with a checksum and the MAC address that it belongs to (row D12).

One line of its own, `tapbridge lease 1 CRC32`, and one of JSON with the values. `read` gives nothing for bytes that are
torn, of a later version, of another MAC address or out of range: a client that knows no lease asks for a new one.
"""

from __future__ import annotations

import json
import zlib
from typing import Any, Final, NamedTuple

from dhcp.lease import Lease, is_host
from dhcp.options import ClasslessRoute
from wire.units import mac_text, prefix_mask

_HEAD: Final = b"tapbridge lease 1 "
MOST_BYTES: Final = 65_536
"""A longer file is none of ours."""


class SavedLease(NamedTuple):
    """A lease, whose it is, and when it ends by the wall clock, in seconds since 1970; None where it never does.

    The wall clock only decides whether the lease is worth asking for: a server's answer brings new times.
    """

    mac: bytes
    lease: Lease
    expires_s: int | None


def write(saved: SavedLease) -> bytes:
    """The bytes of the file."""
    values = saved.lease._asdict() | {"mac": mac_text(saved.mac), "expires_s": saved.expires_s}
    body = json.dumps(values, sort_keys=True).encode()
    return _HEAD + b"%08x\n" % zlib.crc32(body) + body + b"\n"


def read(data: bytes, mac: bytes) -> SavedLease | None:
    """The lease of `mac` that the bytes hold; None where they hold none."""
    head, _, body = data.partition(b"\n")
    body = body.rstrip(b"\n")
    if len(data) > MOST_BYTES or head != _HEAD + b"%08x" % zlib.crc32(body):
        return None
    try:
        values = json.loads(body)
        if values.pop("mac") != mac_text(mac):
            return None
        expires_s = values.pop("expires_s")
        lease = _lease(values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not is_host(lease.address) or not 0 < lease.prefix_length <= 32 or not isinstance(expires_s, int | None):
        return None
    return SavedLease(mac, lease, expires_s)


def _lease(values: dict[str, Any]) -> Lease:
    """The lease of these fields; `ValueError`, `TypeError` or `KeyError` where they are none."""
    routes = tuple(ClasslessRoute(*map(_number, route)) for route in values.pop("routes"))
    dns = tuple(map(_number, values.pop("dns")))
    domain = values.pop("domain")
    if domain is not None and not isinstance(domain, str):
        raise ValueError("a domain is a text")
    numbers: dict[str, Any] = {
        name: None if value is None and name.endswith(("_s", "_bytes")) else _number(value)
        for name, value in values.items()
    }
    lease = Lease(**numbers, routes=routes, dns=dns, domain=domain)
    if any(route.prefix_length > 32 or route.network & ~prefix_mask(route.prefix_length) for route in routes):
        raise ValueError("a route has no such prefix")
    return lease


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0xFFFFFFFF:
        raise ValueError("a number of 32 bits is wanted")
    return value
