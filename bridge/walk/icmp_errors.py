"""ICMP errors on their way through the NAT: the quoted packet finds the link, never the error's own header.

RFC 5508: REQ-4 (`error_from_outside`), REQ-5 (`error_from_inside`), REQ-7 (`error_hairpin`). Links are looked up, never
made, refreshed or ended (REQ-6, RFC 4787 REQ-12, RFC 5382 REQ-10).
"""

from __future__ import annotations

from collections.abc import Callable

from alias import quote as quotes
from alias.quote import Quote
from alias.table import Aliases
from bridge.walk.interface import Interface
from bridge.walk.path import Arrival, Path, Side
from wire.drop import Drop
from wire.ipv4 import Packet

PASSED = frozenset({3, 11, 12})  # RFC 6633: no source quench; a redirect from outside is never believed

SideOf = Callable[[int], Side | None]


def error_from_inside(aliases: Aliases, arrival: Arrival, port: str, out: Interface) -> Path | Drop:
    """RFC 5508 REQ-5: the quoted packet's destination gets its outside name, the error our address."""
    packet = arrival.packet
    quote = _quote_of(packet)
    if isinstance(quote, Drop):
        return quote
    if quote.source != packet.destination:
        return Drop.ALIAS_QUOTE
    assert out.egress is not None
    link = aliases.peek_outbound(out.egress, quote.protocol, quote.destination, quote.destination_port, quote.source)
    if link is None:
        return Drop.ALIAS_NO_LINK
    return Path(
        port,
        out,
        (packet.source, 0),
        (packet.destination, 0),
        source=(out.address, 0),
        quoted=(quote, None, (out.address, link.outside_port)),
        egress=out.egress,
    )


def error_from_outside(aliases: Aliases, arrival: Arrival, came_by: Interface, side_of: SideOf) -> Path | Drop:
    """RFC 5508 REQ-4: the quoted packet's source finds the link; the error goes to the inside host it names."""
    quote = _quote_of(arrival.packet)
    if isinstance(quote, Drop):
        return quote
    if quote.source != came_by.address:
        return Drop.ALIAS_QUOTE
    assert came_by.egress is not None
    link = aliases.peek_inbound(came_by.egress, quote.protocol, quote.source_port, quote.destination)
    if link is None:
        return Drop.ALIAS_NO_LINK
    inside = side_of(link.inside)
    if inside is None:
        return Drop.PORT_ABSENT
    near = (link.inside, link.inside_port)
    return Path(
        *inside,
        near,
        (arrival.packet.source, 0),
        destination=(link.inside, 0),
        quoted=(quote, near, None),
        quoted_identification=aliases.original_identification(link, quote.destination, quote.identification),
    )


def _quote_of(packet: Packet) -> Quote | Drop:
    if packet.data[packet.header_bytes] not in PASSED:
        return Drop.ICMP_TYPE
    return quotes.read(packet)


def error_hairpin(aliases: Aliases, arrival: Arrival, turn: Interface, side_of: SideOf) -> Path | Drop:
    """RFC 5508 REQ-7: an error about a hairpinned packet; both quoted names are turned round."""
    packet = arrival.packet
    quote = _quote_of(packet)
    if isinstance(quote, Drop):
        return quote
    assert turn.egress is not None
    if quote.source != turn.address:
        return Drop.ALIAS_QUOTE
    sender = aliases.peek_inbound(turn.egress, quote.protocol, quote.source_port, quote.destination)
    target = aliases.peek_outbound(turn.egress, quote.protocol, quote.destination, quote.destination_port, quote.source)
    if sender is None or target is None:
        return Drop.ALIAS_NO_LINK
    inside = side_of(sender.inside)
    if inside is None:
        return Drop.PORT_ABSENT
    near = (sender.inside, sender.inside_port)
    return Path(
        *inside,
        (packet.source, 0),
        (sender.inside, 0),
        source=(turn.address, 0),
        destination=(sender.inside, 0),
        quoted=(quote, near, (turn.address, target.outside_port)),
        quoted_identification=aliases.original_identification(sender, turn.address, quote.identification),
    )
