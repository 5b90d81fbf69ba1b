"""ICMP errors on their way through the NAT: the quoted packet finds the link, never the error's own header.

RFC 5508: REQ-4 (`from_outside`), REQ-5 (`from_inside`), REQ-7 (`hairpin`). Links are looked up, never made, refreshed
or ended (REQ-6, RFC 4787 REQ-12, RFC 5382 REQ-10).
"""

from __future__ import annotations

from collections.abc import Callable

from alias import quote as quotes
from alias.quote import Quote
from alias.table import Aliases
from bridge.walk.interface import Interface, NamedPort
from bridge.walk.mtu import PathMtus
from bridge.walk.outcome import Refused
from bridge.walk.path import Arrival, Path
from wire.drop import Drop
from wire.ipv4 import Packet

PASSED = frozenset({3, 11, 12})  # RFC 6633: no source quench; a redirect from outside is never believed


class IcmpErrors:
    """Finds the path of an error. `port_inside`: where the inside end of a link is reached."""

    def __init__(self, aliases: Aliases, mtus: PathMtus, port_inside: Callable[[int], NamedPort | None]) -> None:
        self._aliases = aliases
        self._mtus = mtus
        self._port_inside = port_inside

    def from_inside(self, arrival: Arrival, port: NamedPort) -> Path | Refused:
        """RFC 5508 REQ-5: the quoted packet's destination gets its outside name, the error our address."""
        packet, out = arrival.packet, port.interface
        quote = _quote_of(packet)
        if isinstance(quote, Drop):
            return Refused(quote)
        if quote.source != packet.destination:
            return Refused(Drop.ALIAS_QUOTE)
        assert out.egress is not None
        link = self._aliases.peek_outbound(
            out.egress, quote.protocol, quote.destination, quote.destination_port, quote.source
        )
        if link is None:
            return Refused(Drop.ALIAS_NO_LINK)
        return Path(
            port,
            self._mtus.towards(port),
            (packet.source, 0),
            (packet.destination, 0),
            source=(out.address, 0),
            quoted=(quote, None, (out.address, link.outside_port)),
            egress=out.egress,
        )

    def from_outside(self, arrival: Arrival, came_by: Interface) -> Path | Refused:
        """RFC 5508 REQ-4: the quoted packet's source finds the link, and the error goes to the link's inside host."""
        quote = _quote_of(arrival.packet)
        if isinstance(quote, Drop):
            return Refused(quote)
        if quote.source != came_by.address:
            return Refused(Drop.ALIAS_QUOTE)
        assert came_by.egress is not None
        link = self._aliases.peek_inbound(came_by.egress, quote.protocol, quote.source_port, quote.destination)
        if link is None:
            return Refused(Drop.ALIAS_NO_LINK)
        port = self._port_inside(link.inside)
        if port is None:
            return Refused(Drop.PORT_ABSENT)
        near = (link.inside, link.inside_port)
        return Path(
            port,
            self._mtus.towards(port),
            near,
            (arrival.packet.source, 0),
            destination=(link.inside, 0),
            quoted=(quote, near, None),
            quoted_identification=self._aliases.original_identification(link, quote.destination, quote.identification),
        )

    def hairpin(self, arrival: Arrival, turn: Interface) -> Path | Refused:
        """RFC 5508 REQ-7: an error about a hairpinned packet; both quoted names are turned round."""
        packet, aliases = arrival.packet, self._aliases
        quote = _quote_of(packet)
        if isinstance(quote, Drop):
            return Refused(quote)
        assert turn.egress is not None
        if quote.source != turn.address:
            return Refused(Drop.ALIAS_QUOTE)
        sender = aliases.peek_inbound(turn.egress, quote.protocol, quote.source_port, quote.destination)
        target = aliases.peek_outbound(
            turn.egress, quote.protocol, quote.destination, quote.destination_port, quote.source
        )
        if sender is None or target is None:
            return Refused(Drop.ALIAS_NO_LINK)
        port = self._port_inside(sender.inside)
        if port is None:
            return Refused(Drop.PORT_ABSENT)
        near = (sender.inside, sender.inside_port)
        return Path(
            port,
            self._mtus.towards(port),
            (packet.source, 0),
            (sender.inside, 0),
            source=(turn.address, 0),
            destination=(sender.inside, 0),
            quoted=(quote, near, (turn.address, target.outside_port)),
            quoted_identification=aliases.original_identification(sender, turn.address, quote.identification),
        )


def _quote_of(packet: Packet) -> Quote | Drop:
    if packet.data[packet.header_bytes] not in PASSED:
        return Drop.ICMP_TYPE
    return quotes.read(packet)
