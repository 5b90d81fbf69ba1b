"""Effects of the DHCP client, as values. The walk carries them out and counts them."""

from __future__ import annotations

from typing import NamedTuple

from dhcp.lease import Lease
from wire.drop import Drop


class Broadcast(NamedTuple):
    """Send a whole Ethernet frame on the port itself: to all servers."""

    frame: bytes


class Submit(NamedTuple):
    """Send an IPv4 packet from the leased address to one server, by the port's own next hop and not by routes."""

    packet: bytes


class Assume(NamedTuple):
    """The port has this lease from now on: its address, subnet, next hop and MTU. The same effect tells a renewal, and
    the renewed lease may differ in any of them.

    The port uses the address at once and probes for it beside traffic (RFC 5227); a conflict goes back to
    `Client.conflict`.
    """

    lease: Lease


class Vacate(NamedTuple):
    """The port has no address any more, at once."""


class Remember(NamedTuple):
    """Write the lease down for the next start, or forget the one that is written down."""

    lease: Lease | None


class MessageDropped(NamedTuple):
    """The message that came in changed nothing. To be counted."""

    reason: Drop


class LeaseChanged(NamedTuple):
    """An operator may want to know: the event `lease`.

    `change` is one of

    - `bound`: the port has an address, its first or another one; `renewed`: it keeps it for longer;
    - `nak`: the server refused it; `expired`: nobody renewed it; `released`: the operator gave it back;
    - `declined`: another host uses it; `refused`: the gateway cannot live with what a server offers.

    `says`: the reason in words, for `nak` the server's own; empty where the change says it all.
    """

    change: str
    address: int
    says: str = ""


ClientEffect = Broadcast | Submit | Assume | Vacate | Remember | MessageDropped | LeaseChanged
