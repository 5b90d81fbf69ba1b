"""Every counter of the gateway, in one place: packets and bytes by port, what became of frames, drops by reason.

Each frame that came in by a port has one fate, counted at that port: *sent* (some frame left because of it), *answered*
(by a message of our own), *taken* (an ARP frame that we learn from and owe nothing), *dropped* with a reason, or it is
*held*, which nobody counts here: `bridge.walk.balance` counts what lies in the stores, and says what must be equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from wire.drop import Drop

MOST_ETHERTYPES = 256


class PortCounters:
    """What passed one port. Bytes are those of whole frames, link header included. `tx_packets`: handed to the device.

    Drops that are no fate of a frame which came in by this port: `refused`, frames that its device did not take;
    `lost`, messages of our own without a next hop, and the tunnel's datagrams and waiting packets. `repeated_in`,
    `repeated_out`: the part of `rx_packets` and `tx_packets` that the flow table repeated.
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
    """`ports` by name; `drops_by_port` by (port, reason); `ethertypes` that are not carried, by number, of
    `MOST_ETHERTYPES` different ones; `answered` by the gateway itself; `damaged_quotes`: ICMP errors that were passed
    on although the header that they quote has a bad checksum."""

    def __init__(self, ports: Mapping[str, PortCounters]) -> None:
        self.ports = ports
        self.drops_by_port: Counter[tuple[str, Drop]] = Counter()
        self.ethertypes: Counter[int] = Counter()
        self.answered = 0
        self.icmp_errors = 0
        self.icmp_errors_suppressed = 0
        self.damaged_quotes = 0

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
        """A frame of a kind that is not carried. Whoever sends all kinds there are fills no memory with it: the drop is
        counted anyway."""
        if number in self.ethertypes or len(self.ethertypes) < MOST_ETHERTYPES:
            self.ethertypes[number] += 1

    @property
    def drops(self) -> dict[Drop, int]:
        """All reasons with their number over all ports, zeros too."""
        totals = dict.fromkeys(Drop, 0)
        for (_, reason), number in self.drops_by_port.items():
            totals[reason] += number
        return totals
