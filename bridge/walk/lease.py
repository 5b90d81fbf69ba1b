"""The DHCP client of tap1 at work: its messages leave, the port takes and loses addresses, people hear of it.

`dhcp.client` decides. Here its effects are carried out in the order in which they come: frames to all servers leave by
the port, packets to one server by the port's own next hop (never by routes: an ISP's server often has a private
address), and `take` (`Gateway._take_lease`) gives the port what was leased. RFC 2131 4.1: answers are heard before the
check for martians, because they go to 255.255.255.255 or to an address that is not ours yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from alias.types import Egress
from arp.effects import EntryChanged
from bridge.walk.effects import Effect, Event
from bridge.walk.interface import Interface, NamedPort
from bridge.walk.outcome import ANSWERED, TAKEN, Answered, Refused, Service, TakenIn
from bridge.walk.outgoing import Outgoing
from bridge.walk.path import Arrival
from bridge.walk.settings import PortSettings
from dhcp import datagram
from dhcp.client import Client
from dhcp.effects import Assume, Broadcast, ClientEffect, LeaseChanged, MessageDropped, Remember, Submit, Vacate
from dhcp.lease import Lease
from dhcp.settings import ClientSettings
from route.table import LOCAL, TAP1, Layer
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.units import address_text, prefix_mask

OWN_PORT: Final = (Egress.TAP1, ipv4.UDP, datagram.CLIENT_PORT)
"""The outside port that no link may get, and that the flow table leaves to the walk."""


def leased(port: PortSettings, lease: Lease | None) -> PortSettings:
    """The settings of a port that has this lease; without one the port's own, which have no address. Static ARP entries
    of other subnets wait for a lease that has them."""
    if lease is None:
        return port
    mask = prefix_mask(lease.prefix_length)
    edges = frozenset((lease.network, lease.network | mask ^ 0xFFFFFFFF)) if lease.prefix_length < 31 else frozenset()
    beyond = lease.gateway if (lease.gateway ^ lease.address) & mask else 0
    neighbours = {
        address: mac
        for address, mac in port.static_arp.items()
        if (address & mask == lease.network or address == beyond) and address not in (lease.address, *edges)
    }
    return replace(
        port,
        mtu_bytes=lease.mtu_bytes or port.mtu_bytes,
        address=lease.address,
        network=lease.network,
        prefix_length=lease.prefix_length,
        edges=edges,
        gateway=lease.gateway,
        beyond=beyond,
        static_arp=neighbours,
    )


def leased_layers(port: PortSettings) -> Sequence[Layer]:
    """The connected networks of a leased port for `RouteTable.connect`: its address, its subnet, and a gateway outside
    of the subnet, which is on the link all the same. Nothing without a lease."""
    if not port.address:
        return ()
    source, line = port.written_at
    networks = [(LOCAL, port.address, 32), (TAP1, port.network, port.prefix_length)]
    if port.beyond:
        networks.append((TAP1, port.beyond, 32))
    return [Layer(target, source, [(network, length, line)]) for target, network, length in networks]


def holds(interface: Interface, port: PortSettings) -> bool:
    """True where the interface has the address and the subnet of these settings, and their gateway as a neighbour."""
    is_same = (interface.address, interface.mask) == (port.address, prefix_mask(port.prefix_length))
    knows = interface.neighbours is not None and (not port.beyond or interface.neighbours.is_resolvable(port.beyond))
    return is_same and knows


class LeaseService(Service):
    """`port`: tap1. `take(lease, now, effects)`: the port has this lease from now on, None for no address.
    `forget(now)`: the address of an earlier run does not come back. `keep(lease)`: written down for the next start; a
    gateway without a file keeps nothing. `remembered`: the lease of an earlier run, set before `start`."""

    def __init__(
        self,
        client: Client,
        port: NamedPort,
        out: Outgoing,
        take: Callable[[Lease | None, int, list[Effect]], None],
        forget: Callable[[int], None],
    ) -> None:
        self.client = client
        self.keep: Callable[[Lease | None], None] = lambda _lease: None
        self.remembered: Lease | None = None
        self._port = port
        self._out = out
        self._take = take
        self._forget = forget

    def wants(self, arrival: Arrival) -> bool:
        """True for UDP to the client's port that came by tap1, whole or its first fragment."""
        packet = arrival.packet
        return (
            arrival.port.interface is self._port.interface
            and packet.protocol == ipv4.UDP
            and not packet.offset_bytes
            and ipv4.read_transport(packet) is None
            and datagram.is_for_client(packet)
        )

    def receive(self, arrival: Arrival, now: int, effects: list[Effect]) -> Answered | Refused | TakenIn:
        """Take in a message; refused where it changed nothing."""
        wanted = self.client.receive(arrival.packet, now)
        drop = self._carry_out(wanted, now, effects)
        if drop is not None:
            return Refused(drop)
        return ANSWERED if any(isinstance(effect, Broadcast | Submit) for effect in wanted) else TAKEN

    # Time, and what happens to the port

    def start(self, now: int, effects: list[Effect]) -> None:
        """Begin, with the remembered lease where there is one."""
        self._carry_out(self.client.start(now, self.remembered), now, effects)

    def tick(self, now: int, effects: list[Effect]) -> None:
        """Fire what is due."""
        self._carry_out(self.client.tick(now), now, effects)

    def next_deadline(self) -> int | None:
        """When `tick` has something to do, in ns."""
        return self.client.next_deadline()

    def neighbour_changed(self, port: NamedPort, changed: EntryChanged, now: int, effects: list[Effect]) -> None:
        """ARP has news: another station uses the address of tap1 (RFC 5227), or the ISP router has another MAC address
        and may be the router of another network (RFC 4436)."""
        interface = port.interface
        if interface is not self._port.interface or not interface.address:
            return
        if changed.change == "conflict" and changed.address == interface.address:
            self._carry_out(self.client.conflict(now), now, effects)
        elif changed.change == "changed" and changed.address == interface.gateway:
            self.reattach(now, effects)

    def reattach(self, now: int, effects: list[Effect]) -> None:
        """The link came back, or the ISP router is another one."""
        self._carry_out(self.client.reattach(now), now, effects)

    # The operator

    def renew(self, now: int, effects: list[Effect]) -> None:
        """Ask a server now."""
        self._carry_out(self.client.renew(now), now, effects)

    def release(self, now: int, effects: list[Effect]) -> None:
        """Give the address back, and ask for none before `renew`, a reload or a start."""
        self._carry_out(self.client.release(now), now, effects)

    def reconfigure(self, settings: ClientSettings, now: int, effects: list[Effect]) -> None:
        """A reload. The MAC address stays the one in use."""
        own = replace(settings, mac=self.client.settings.mac)
        self._carry_out(self.client.reconfigure(own, now), now, effects)

    def _carry_out(self, wanted: Iterable[ClientEffect], now: int, effects: list[Effect]) -> Drop | None:
        """Do what the client wants done, in its order; the reason where it dropped a message."""
        drop: Drop | None = None
        for effect in wanted:
            match effect:
                case Broadcast(frame):
                    self._out.send(self._port, frame, None, effects)
                case Submit(data):
                    packet = ipv4.parse(data)
                    assert isinstance(packet, Packet), "it was written by `dhcp.datagram`"
                    self._out.submit(self._port, packet, now, effects)
                case Assume(lease):
                    self._take(lease, now, effects)
                case Vacate():
                    self._take(None, now, effects)
                case Remember(kept):
                    self.keep(kept)
                    if kept is None:
                        self._forget(now)
                case MessageDropped(reason):
                    drop = reason
                case LeaseChanged(change, address, says):
                    effects.append(Event(self._port.name, "lease", _facts(change, address, says)))
        return drop


def _facts(change: str, address: int, says: str) -> dict[str, object]:
    facts: dict[str, object] = {"change": change, "address": address_text(address)}
    return {**facts, "says": says} if says else facts
