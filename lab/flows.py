"""The four packet flows of the design, and what a frame's addresses are at each hop of one of them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

from lab.topology import HOSTS, OFFLOADED, TAP1, TUN0, TUNNELLED, VPN_ALIAS, Lab
from wire import ethernet, ipv4
from wire.units import address_text


class Hop(NamedTuple):
    """A frame at a port: `in` or `out` of the gateway, and its addresses."""

    port: str
    direction: str
    source: str
    destination: str

    def __str__(self) -> str:
        return f"{self.port:4} {self.direction:3} {self.source} -> {self.destination}"


class Flow(NamedTuple):
    """`client`: the namespace that asks; `port` and `egress`: where its packets come in and leave; `source`: its
    address; `alias`: its name behind the gateway."""

    name: str
    client: str
    port: str
    source: str
    egress: str
    alias: str
    destination: str

    @property
    def hops(self) -> list[Hop]:
        """The table of the design: request at the port, at the egress, reply there, reply at the port."""
        return [
            Hop(self.port, "in", self.source, self.destination),
            Hop(self.egress, "out", self.alias, self.destination),
            Hop(self.egress, "in", self.destination, self.alias),
            Hop(self.port, "out", self.destination, self.source),
        ]


LAN_TO_VPN = Flow("LAN -> VPN", "lan3", "tap0", HOSTS["lan3"], "vpn", VPN_ALIAS, TUNNELLED)
HOST_TO_VPN = Flow("host -> VPN", "gw", "tun0", TUN0, "vpn", TUN0, TUNNELLED)
LAN_TO_OFFLOAD = Flow("LAN -> offload", "lan3", "tap0", HOSTS["lan3"], "tap1", TAP1, OFFLOADED)
HOST_TO_OFFLOAD = Flow("host -> offload", "gw", "tun0", TUN0, "tap1", TAP1, OFFLOADED)
FLOWS = (LAN_TO_VPN, HOST_TO_VPN, LAN_TO_OFFLOAD, HOST_TO_OFFLOAD)


def observed_hops(lab: Lab, flow: Flow) -> list[Hop]:
    """Ping once and watch both ports of the flow: the echo's way in the order of `Flow.hops`."""
    with ExitStack() as stack:
        watched = {name: stack.enter_context(closing(lab.watch(name))) for name in (flow.port, flow.egress)}
        lab.client(flow.client, "ping", flow.destination)
        port, egress = (_echoes(watched[name], name) for name in (flow.port, flow.egress))
        asked, sent, answered = next(port), next(egress), next(egress)
        return [asked, sent, answered, next(port)]


def _echoes(records: Iterator[dict[str, Any]], port: str) -> Iterator[Hop]:
    """The ICMP packets among a port's records (ARP passes there too)."""
    start = ethernet.HEADER_BYTES if port.startswith("tap") else 0
    for record in records:
        packet = ipv4.parse(base64.b64decode(record["frame"]), start)
        if isinstance(packet, ipv4.Packet) and packet.protocol == ipv4.ICMP:
            yield Hop(port, record["direction"], address_text(packet.source), address_text(packet.destination))
