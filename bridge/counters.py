"""Every counter of the gateway, in one place: packets and bytes by port, drops by port and reason."""

from __future__ import annotations

from collections import Counter

from wire.drop import Drop

MOST_ETHERTYPES = 256


class PortCounters:
    """What passed one port. Bytes are those of whole frames, link header included."""

    __slots__ = ("rx_bytes", "rx_packets", "tx_bytes", "tx_packets")

    def __init__(self) -> None:
        self.rx_packets = self.rx_bytes = self.tx_packets = self.tx_bytes = 0


class Counters:
    """`ports` by name; `drops_by_port` by (port, reason); `ethertypes` that are not carried, by number, of
    `MOST_ETHERTYPES` different ones; `answered` by
    the gateway itself."""

    def __init__(self, ports: list[str]) -> None:
        self.ports: dict[str, PortCounters] = {name: PortCounters() for name in ports}
        self.drops_by_port: Counter[tuple[str, Drop]] = Counter()
        self.ethertypes: Counter[int] = Counter()
        self.answered = 0
        self.icmp_errors = 0
        self.icmp_errors_suppressed = 0

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
