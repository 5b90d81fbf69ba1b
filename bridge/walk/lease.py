"""The DHCP client of tap1 at work: its messages leave, the port takes and loses addresses, people hear of it.

`dhcp.client` decides. Here its effects are carried out in the order in which they come: frames to all servers leave by
the port, packets to one server by the port's own next hop (never by routes: an ISP's server often has a private
address), and `Gateway.take_lease` gives the port what was leased. RFC 2131 4.1: answers are heard before the checks of
addresses, because they go to 255.255.255.255 or to an address that is not ours yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from alias.types import Egress
from arp.effects import Changed as NeighbourChanged
from bridge.walk.effects import Event
from bridge.walk.interface import Interface
from bridge.walk.outgoing import Outgoing
from bridge.walk.path import Arrival
from dhcp import datagram
from dhcp.client import Client
from dhcp.effects import Assume, Changed, ClientEffect, Dropped, Remember, Submit, Transmit, Vacate
from dhcp.lease import Lease
from dhcp.settings import ClientSettings
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.units import address_text

OWN_PORT: Final = (Egress.TAP1, ipv4.UDP, datagram.CLIENT_PORT)
"""The outside port that no link may get, and that the flow table leaves to the walk."""


class LeaseService:
    """`interface`: tap1. `take(lease, now)`: the port has this lease from now on, None for no address. `keep(lease)`:
    written down for the next start; a gateway whose process has no file keeps nothing. `remembered`: what an earlier
    start wrote, set before `start`."""

    def __init__(
        self, client: Client, interface: Interface, out: Outgoing, take: Callable[[Lease | None, int], None]
    ) -> None:
        self.client = client
        self.keep: Callable[[Lease | None], None] = lambda _lease: None
        self.forget: Callable[[int], None] = lambda _now: None
        self.remembered: Lease | None = None
        self._interface = interface
        self._out = out
        self._take = take

    def wants(self, arrival: Arrival) -> bool:
        """True for UDP to the client's port that came by tap1, whole or its first fragment; ports are read with it."""
        packet = arrival.packet
        return (
            arrival.interface is self._interface
            and packet.protocol == ipv4.UDP
            and not packet.offset_bytes
            and ipv4.read_transport(packet) is None
            and datagram.is_for_client(packet)
        )

    def receive(self, arrival: Arrival, now: int) -> Drop | None:
        """Take in a message that `wants` asked for, and count its fate; the reason where it changed nothing."""
        self._out.say("dhcp", "for the client of tap1, which is {}", str(self.client.state))
        effects = self.client.receive(arrival.packet, now)
        drop = self.carry_out(effects, now)
        if drop is not None:
            return drop
        counters = arrival.interface.counters
        if any(isinstance(effect, Transmit | Submit) for effect in effects):
            counters.answered += 1
            self._out.counters.answered += 1
        else:
            counters.taken += 1
        return None

    # Time, and what happens to the port

    def start(self, now: int) -> None:
        """Begin, with the remembered lease where there is one."""
        self.carry_out(self.client.start(now, self.remembered), now)

    def tick(self, now: int) -> None:
        """Fire what is due."""
        self.carry_out(self.client.tick(now), now)

    def next_deadline(self) -> int | None:
        """When `tick` has something to do, in ns."""
        return self.client.next_deadline()

    def neighbour_changed(self, interface: Interface, changed: NeighbourChanged, now: int) -> None:
        """ARP has news: another station uses the address of tap1 (RFC 5227), or the ISP router has another MAC address
        and may be the router of another network (RFC 4436)."""
        if interface is not self._interface or not interface.address:
            return
        if changed.change == "conflict":
            self.carry_out(self.client.conflict(now), now)
        elif changed.change == "changed" and changed.address == interface.gateway:
            self.reattach(now)

    def reattach(self, now: int) -> None:
        """The link came back, or the ISP router is another one."""
        self.carry_out(self.client.reattach(now), now)

    # The operator

    def renew(self, now: int) -> None:
        """Ask a server now."""
        self.carry_out(self.client.renew(now), now)

    def release(self, now: int) -> None:
        """Give the address back, and ask for none before `renew`, a reload or a start."""
        self.carry_out(self.client.release(now), now)

    def reconfigure(self, settings: ClientSettings, now: int) -> None:
        """A reload."""
        self.carry_out(self.client.reconfigure(settings, now), now)

    def carry_out(self, effects: Iterable[ClientEffect], now: int) -> Drop | None:
        """Do what the client wants done, in its order; the reason where it dropped a message."""
        drop: Drop | None = None
        out, interface = self._out, self._interface
        for effect in effects:
            match effect:
                case Transmit(frame):
                    out.send(interface.name, interface, frame, None)
                case Submit(data):
                    packet = ipv4.parse(data)
                    assert isinstance(packet, Packet), "it was written by `dhcp.datagram`"
                    out.emit(interface.name, interface, (packet,), None, now)
                case Assume(lease):
                    self._take(lease, now)
                case Vacate():
                    self._take(None, now)
                case Remember(kept):
                    self.keep(kept)
                    if kept is None:
                        self.forget(now)
                case Dropped(reason):
                    drop = reason
                case Changed(change, address, says):
                    facts: dict[str, object] = {"change": change, "address": address_text(address)}
                    if says:
                        facts["says"] = says
                    out.effects.append(Event(interface.name, "lease", facts))
        return drop
