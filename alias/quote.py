"""The packet that an ICMP error quotes: read it, and give it the names of the other side.

RFC 5508: 3 (`read` refuses a bad ICMP checksum), 3b (quoted options are skipped), 3c (the quoted transport checksum is
not validated), 3d (RFC 4884 extensions and padding are not touched), 4 and 5 (`rewrite_quote`). RFC 3022 4.3.

Against RFC 5508 3a an error is passed on whose quoted header has a bad checksum (`Quote.is_damaged`): a NAT on the
way that damages quotes would cost traceroute and path MTU discovery otherwise.

The quote may be cut anywhere behind eight bytes of its transport header (RFC 792). Everything stays incremental: the
quoted checksums, and the ICMP checksum that covers them, are as right or as wrong after the change as before.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from alias.rewrite import CHECKSUM_OFFSET, ZERO_IS_SENT_AS_ONES
from wire.checksum import apply, delta16, delta32, is_valid
from wire.drop import Drop
from wire.ipv4 import ICMP, ICMP_QUERIES, MINIMUM_HEADER_BYTES, TCP, UDP, Packet

ICMP_HEADER_BYTES = 8
_QUOTED_TRANSPORT_BYTES = 8
_ICMP_CHECKSUM_OFFSET = 2
_PADDED_BYTES = 128  # RFC 4884 4: a quote with extensions behind it is at least this long
_EXTENSIBLE = frozenset({3, 11, 12})  # RFC 4884 4: these say in byte 5 how many words of quote stand before extensions

NO_PORT = -1
"""The port of a quote without ports: it is no key of any index, so that no link is found by mistake (0 is an identifier
of ICMP queries like any other)."""

_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")
_FIELDS = struct.Struct("!xxxxHHxBxxII")


class Quote(NamedTuple):
    """The quoted packet: who sent what to whom, in the names of the side that the error comes from.

    `source_port`, `destination_port`: of TCP and UDP; an ICMP query's identifier in both; `NO_PORT` where `has_ports`
    is False: the quote is of a later fragment, or of a protocol without ports. `ip_offset`: of the quoted IP header in
    the error's `data`. `transport_offset`: of what follows it. `checksum_offset`: of the quoted transport checksum in
    `data`, 0 where the quote ends before it or the protocol has none that a change of names touches. `identification`:
    of the quoted IP header. `is_damaged`: the checksum of the quoted IP header is bad.
    """

    protocol: int
    source: int
    destination: int
    source_port: int
    destination_port: int
    has_ports: bool
    ip_offset: int
    transport_offset: int
    checksum_offset: int
    identification: int
    is_damaged: bool = False


def read(packet: Packet) -> Quote | Drop:
    """The quote in an ICMP error (a whole packet or first fragment, `packet.is_icmp_error`).

    `Drop.ICMP_CHECKSUM`: the error's own checksum is bad (not known of a fragment, so not checked there).
    `Drop.ALIAS_QUOTE`: no quoted header, a short one, less than eight bytes behind it, or a quote of an ICMP message
    that is no query (RFC 1122 3.2.2: there are no errors about errors).
    """
    data, start = packet.data, packet.header_bytes
    if not packet.is_icmp_error or len(data) - start < ICMP_HEADER_BYTES:
        return Drop.ALIAS_QUOTE
    if not packet.is_fragment and not is_valid(memoryview(data)[start:]):
        return Drop.ICMP_CHECKSUM
    end, is_padded = _end_of_quote(data, start)
    at = start + ICMP_HEADER_BYTES
    if end - at < MINIMUM_HEADER_BYTES or data[at] >> 4 != 4:
        return Drop.ALIAS_QUOTE
    header_bytes = (data[at] & 15) * 4
    transport = at + header_bytes
    if header_bytes < MINIMUM_HEADER_BYTES or transport > end:
        return Drop.ALIAS_QUOTE
    is_damaged = not is_valid(memoryview(data)[at:transport])
    identification, flags, protocol, source, destination = _FIELDS.unpack_from(data, at)
    is_later_fragment = bool(flags & 0x1FFF)
    has_ports = not is_later_fragment and protocol in (TCP, UDP, ICMP)
    source_port = destination_port = NO_PORT
    if has_ports:
        ports = _quoted_ports(data, protocol, transport, end)
        if ports is None:
            return Drop.ALIAS_QUOTE
        source_port, destination_port = ports
    checksum_offset = 0 if is_later_fragment else _checksum_within(protocol, transport, end)
    # RFC 4884 4.1 pads the quote with zeros: a TCP checksum among them is padding, not a checksum.
    if is_padded and protocol == TCP and not any(data[transport + _QUOTED_TRANSPORT_BYTES : end]):
        checksum_offset = 0
    return Quote(
        protocol,
        source,
        destination,
        source_port,
        destination_port,
        has_ports,
        at,
        transport,
        checksum_offset,
        identification,
        is_damaged,
    )


def _end_of_quote(data: bytearray, start: int) -> tuple[int, bool]:
    """Where in `data` the quote of the ICMP error at `start` ends, and whether RFC 4884 extensions follow it, before
    which the quote is padded with zeros."""
    if data[start] in _EXTENSIBLE and data[start + 5]:
        quoted_bytes = data[start + 5] * 4
        end = start + ICMP_HEADER_BYTES + quoted_bytes
        if quoted_bytes >= _PADDED_BYTES and end <= len(data):
            return end, True
    return len(data), False


def _quoted_ports(data: bytearray, protocol: int, transport: int, end: int) -> tuple[int, int] | None:
    """The ports of a quoted TCP or UDP header, the identifier of a quoted ICMP query twice; None for a header that is
    cut before its eighth byte and for an ICMP message that is no query."""
    if end - transport < _QUOTED_TRANSPORT_BYTES:
        return None
    if protocol == ICMP:
        identifier = data[transport + 4] << 8 | data[transport + 5]
        return (identifier, identifier) if data[transport] in ICMP_QUERIES else None
    return data[transport] << 8 | data[transport + 1], data[transport + 2] << 8 | data[transport + 3]


def _checksum_within(protocol: int, transport: int, end: int) -> int:
    """Where the checksum of a transport header stands; 0 where the quote ends before it, or the protocol has none that
    a change of addresses or ports touches."""
    offset = _ICMP_CHECKSUM_OFFSET if protocol == ICMP else CHECKSUM_OFFSET.get(protocol, 0)
    return transport + offset if offset and transport + offset + 2 <= end else 0


def rewrite_quote(
    packet: Packet,
    quote: Quote,
    *,
    source: tuple[int, int] | None = None,
    destination: tuple[int, int] | None = None,
    identification: int | None = None,
) -> None:
    """Give the quoted packet another source or destination (address, port), or IP identification, in place.

    For an ICMP query the port is the identifier; where `has_ports` is False it is ignored. The error's own addresses
    are not touched: see `alias.rewrite`.
    """
    data = packet.data
    addresses = ports = named_anew = 0
    if identification is not None:
        named_anew = delta16(quote.identification, identification)
        _U16.pack_into(data, quote.ip_offset + 4, identification)
    if source is not None:
        addresses += delta32(quote.source, source[0])
        _U32.pack_into(data, quote.ip_offset + 12, source[0])
    if destination is not None:
        addresses += delta32(quote.destination, destination[0])
        _U32.pack_into(data, quote.ip_offset + 16, destination[0])
    if quote.has_ports:
        if quote.protocol == ICMP:
            named = destination if destination is not None else source
            if named is not None:
                ports += delta16(quote.source_port, named[1])
                _U16.pack_into(data, quote.transport_offset + 4, named[1])
        else:
            if source is not None:
                ports += delta16(quote.source_port, source[1])
                _U16.pack_into(data, quote.transport_offset, source[1])
            if destination is not None:
                ports += delta16(quote.destination_port, destination[1])
                _U16.pack_into(data, quote.transport_offset + 2, destination[1])
    outer = addresses + ports + named_anew
    outer += _change(data, quote.ip_offset + 10, addresses + named_anew, zero_as_ones=False)
    if quote.checksum_offset:
        at = quote.checksum_offset
        if quote.protocol == ICMP:
            outer += _change(data, at, ports, zero_as_ones=False)
        elif quote.protocol != UDP or data[at] or data[at + 1]:
            outer += _change(data, at, addresses + ports, zero_as_ones=quote.protocol in ZERO_IS_SENT_AS_ONES)
    at = packet.header_bytes + 2
    _U16.pack_into(data, at, apply(data[at] << 8 | data[at + 1], outer))


def _change(data: bytearray, at: int, delta: int, *, zero_as_ones: bool) -> int:
    """Apply a delta to the checksum at `at`; what that change in turn adds to the sum of an outer checksum."""
    old = data[at] << 8 | data[at + 1]
    new = apply(old, delta)
    if new == 0 and zero_as_ones:
        new = 0xFFFF
    _U16.pack_into(data, at, new)
    return delta16(old, new)
