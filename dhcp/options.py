"""The options of a DHCP message: numbers, the type-length-value fields, and the few values that are read.

RFC 2132 2 (fields, `PAD`, `END`): `fields_of`, `written`. RFC 2131 4.1 and RFC 2132 9.3 (option overload): the caller
hands `file` and `sname` to `fields_of` as further areas. RFC 3396 5 to 7 (an option that occurs more than once is one
long option, a long one is split): `fields_of`, `written`. RFC 3442 (classless static routes): `routes_in`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from wire.units import prefix_mask

PAD: Final = 0
SUBNET_MASK: Final = 1
ROUTER: Final = 3
DNS_SERVERS: Final = 6
HOST_NAME: Final = 12
DOMAIN_NAME: Final = 15
INTERFACE_MTU: Final = 26
REQUESTED_ADDRESS: Final = 50
LEASE_TIME: Final = 51
OVERLOAD: Final = 52
MESSAGE_TYPE: Final = 53
SERVER_IDENTIFIER: Final = 54
PARAMETER_LIST: Final = 55
MESSAGE_TEXT: Final = 56
MAXIMUM_SIZE: Final = 57
RENEWAL_TIME: Final = 58
REBINDING_TIME: Final = 59
VENDOR_CLASS: Final = 60
CLIENT_IDENTIFIER: Final = 61
CLASSLESS_ROUTES: Final = 121
END: Final = 255

ASKED: Final = bytes((SUBNET_MASK, ROUTER, DNS_SERVERS, DOMAIN_NAME, INTERFACE_MTU, CLASSLESS_ROUTES))
"""The options that option 55 asks for."""

_MOST_BYTES: Final = 255  # of one field; a longer option takes several


class ClasslessRoute(NamedTuple):
    """A classless static route (RFC 3442). `network`: masked; `router` 0: the network is on the link itself."""

    network: int
    prefix_length: int
    router: int


def fields_of(area: bytes, found: dict[int, bytes]) -> bool:
    """Read one area of options into `found`; False where a field is cut off. Repeated options are joined.

    An area may end without END: a field that is cut shows in its length, and nothing else can be lost.
    """
    at, end = 0, len(area)
    while at < end:
        code = area[at]
        if code == PAD:
            at += 1
            continue
        if code == END:
            return True
        if at + 2 > end:
            return False
        stop = at + 2 + area[at + 1]
        if stop > end:
            return False
        found[code] = found.get(code, b"") + area[at + 2 : stop]
        at = stop
    return True


def written(options: Iterable[tuple[int, bytes]]) -> bytes:
    """The area of these options in their order, with its END. One above 255 bytes becomes several fields."""
    area = bytearray()
    for code, value in options:
        for at in range(0, len(value), _MOST_BYTES) or (0,):
            part = value[at : at + _MOST_BYTES]
            area += bytes((code, len(part)))
            area += part
    area.append(END)
    return bytes(area)


# Values. A value of the wrong length counts as absent.


def number_in(options: Mapping[int, bytes], code: int, size_bytes: int = 4) -> int | None:
    """An address or a number of `size_bytes`; None where it is absent or of another length."""
    value = options.get(code)
    return int.from_bytes(value, "big") if value is not None and len(value) == size_bytes else None


def addresses_in(options: Mapping[int, bytes], code: int) -> tuple[int, ...]:
    """A list of addresses, the preferred one first."""
    value = options.get(code, b"")
    if len(value) % 4:
        return ()
    return tuple(int.from_bytes(value[at : at + 4], "big") for at in range(0, len(value), 4))


def text_in(options: Mapping[int, bytes], code: int) -> str | None:
    """A text, without the zero bytes that some servers end it with; None where it is empty or not printable ASCII."""
    value = options.get(code, b"").rstrip(b"\0")
    if not value or not all(0x20 < byte < 0x7F for byte in value):
        return None
    return value.decode("ascii")


def routes_in(options: Mapping[int, bytes]) -> tuple[ClasslessRoute, ...] | None:
    """The classless static routes in the server's order; None where option 121 is absent, empty or malformed.

    A descriptor is a prefix length, as many bytes of the network as that length needs, and the router. Host bits that
    are set are cleared.
    """
    value = options.get(CLASSLESS_ROUTES, b"")
    found: list[ClasslessRoute] = []
    at = 0
    while at < len(value):
        length = value[at]
        middle = at + 1 + (length + 7) // 8
        end = middle + 4
        if length > 32 or end > len(value):
            return None
        network = int.from_bytes(value[at + 1 : middle].ljust(4, b"\0"), "big") & prefix_mask(length)
        found.append(ClasslessRoute(network, length, int.from_bytes(value[middle:end], "big")))
        at = end
    return tuple(found) or None
