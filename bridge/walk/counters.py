"""Every counter of the gateway, in one place: packets and bytes by port, fates of frames, drops by reason.

Each frame that came in by a port has one fate, counted at that port: *sent* (a frame left because of it), *answered*
(by a message of our own), *taken* (an ARP frame that we learn from and owe nothing), or *dropped* with a reason. A
*held* frame is counted nowhere: `bridge.walk.balance` looks into the stores, and says which numbers must be equal.
`Gateway.counters` gives these counters with the frames that the flow table has repeated until then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from wire.drop import Drop

MOST_ETHERTYPES = 256
MOST_ROUTERS = 16


class PortCounters:
    """One port's packets and bytes. Bytes are those of whole frames, link header included.

    `rx`: came in; `tx`: handed to the device. `sent`, `answered`, `taken`, `dropped`: the fates of frames that came in.
    `refused` and `lost` are drops that are no frame's fate here: the device did not take a frame; a message of our own
    had no next hop, or a datagram or waiting packet of the tunnel was dropped.
    `repeated_in`, `repeated_out`: the part of `rx_packets` and `tx_packets` that the flow table repeated.
    """

    __slots__ = (
        "answered",
        "dropped",
        "lost",
        "refused",
        "repeated_in",
        "repeated_out",
        "rx_bytes",
        "rx_packets",
        "sent",
        "taken",
        "tx_bytes",
        "tx_packets",
    )

    def __init__(self) -> None:
        self.rx_packets = self.rx_bytes = self.tx_packets = self.tx_bytes = 0
        self.sent = self.answered = self.taken = self.dropped = 0
        self.refused = self.lost = self.repeated_in = self.repeated_out = 0


class Counters:
    """`ports` by name; `drops_by_port` by (port, reason); `ethertypes`: frames that are not carried, by number, of at
    most `MOST_ETHERTYPES` numbers; `answered`: IP packets that a message of our own answered; `icmp_errors`: sent, or
    suppressed by RFC 1812 4.3.2.7, `icmp.mute` or the rate limit; `damaged_quotes`: ICMP errors that were passed on
    although the header that they quote has a bad checksum; `ipv6_routers`: (port, MAC address) of stations that
    advertise themselves as IPv6 routers, at most `MOST_ROUTERS`: hosts there may go past us."""

    def __init__(self, ports: Mapping[str, PortCounters]) -> None:
        self.ports = ports
        self.drops_by_port: Counter[tuple[str, Drop]] = Counter()
        self.ethertypes: Counter[int] = Counter()
        self.answered = 0
        self.icmp_errors = 0
        self.icmp_errors_suppressed = 0
        self.damaged_quotes = 0
        self.ipv6_routers: set[tuple[str, bytes]] = set()

    def dropped(self, port: str, reason: Drop, number: int = 1) -> None:
        """Frames that came in by `port` go no further."""
        self.drops_by_port[port, reason] += number
        self.ports[port].dropped += number

    def refused(self, port: str, reason: Drop, number: int = 1) -> None:
        """The device of `port` did not take frames that were handed to it."""
        self.drops_by_port[port, reason] += number
        self.ports[port].refused += number

    def lost(self, port: str, reason: Drop, number: int = 1) -> None:
        """Something of our own did not leave by `port`, or a datagram of the tunnel was dropped on the way in."""
        self.drops_by_port[port, reason] += number
        self.ports[port].lost += number

    def ethertype(self, number: int) -> None:
        """Count a frame of a kind that is not carried. A host that sends all kinds fills no memory: beyond the bound,
        only the drop is counted."""
        if number in self.ethertypes or len(self.ethertypes) < MOST_ETHERTYPES:
            self.ethertypes[number] += 1

    def is_new_router(self, port: str, mac: bytes) -> bool:
        """Remember an IPv6 router; whether it was not known, and there was room."""
        if (port, mac) in self.ipv6_routers or len(self.ipv6_routers) >= MOST_ROUTERS:
            return False
        self.ipv6_routers.add((port, mac))
        return True

    @property
    def drops(self) -> dict[Drop, int]:
        """All reasons with their number over all ports, zeros too."""
        totals = dict.fromkeys(Drop, 0)
        for (_, reason), number in self.drops_by_port.items():
            totals[reason] += number
        return totals
