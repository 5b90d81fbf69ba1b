"""The four packet flows of topology.md, and how one of them looks at each hop of a running lab."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any, NamedTuple

from bridge.control.client import ControlError
from lab.topology import HOSTS, OFFLOADED, TAP1, TUN0, TUNNELLED, VPN_ALIAS, Lab
from wire import ethernet, ipv4
from wire.units import address_text

Hop = tuple[str, str]
"""A packet at a port: (port, `source -> destination`)."""


class PacketFlow(NamedTuple):
    """One of the four flows: where its client is, the ports it passes, and the source that the far end must see."""

    name: str
    client: str
    address: str
    remote: str
    port: str
    beyond: str
    seen_as: str

    @property
    def hops(self) -> list[Hop]:
        """Request at the port and beyond, reply there and at the port, as topology.md's table has them."""
        return [
            (self.port, f"{self.address} -> {self.remote}"),
            (self.beyond, f"{self.seen_as} -> {self.remote}"),
            (self.beyond, f"{self.remote} -> {self.seen_as}"),
            (self.port, f"{self.remote} -> {self.address}"),
        ]


LAN_TO_VPN = PacketFlow("LAN -> VPN", "lan3", HOSTS["lan3"], TUNNELLED, "tap0", "vpn", VPN_ALIAS)
HOST_TO_VPN = PacketFlow("host -> VPN", "gw", TUN0, TUNNELLED, "tun0", "vpn", TUN0)
LAN_TO_OFFLOAD = PacketFlow("LAN -> offload", "lan3", HOSTS["lan3"], OFFLOADED, "tap0", "tap1", TAP1)
HOST_TO_OFFLOAD = PacketFlow("host -> offload", "gw", TUN0, OFFLOADED, "tun0", "tap1", TAP1)
FLOWS = (LAN_TO_VPN, HOST_TO_VPN, LAN_TO_OFFLOAD, HOST_TO_OFFLOAD)


def observe(lab: Lab, flow: PacketFlow) -> tuple[dict[str, Any], list[Hop]]:
    """One UDP request and its reply, with live captures of both ports: the client's document, and the hops in the order
    of `Flow.hops`, fewer where a packet did not come."""
    hops: list[Hop] = []
    with ExitStack() as stack:
        watched = {name: stack.enter_context(closing(lab.watch(name))) for name in (flow.port, flow.beyond)}
        answer = lab.client(flow.client, "ask", flow.remote, "64")
        port, beyond = (datagrams(watched[name], name, flow.remote) for name in (flow.port, flow.beyond))
        with suppress(ControlError, StopIteration):  # nothing more came: what is missing tells
            for packets in (port, beyond, beyond, port):
                hops.append(next(packets))
    return answer, hops


def datagrams(records: Iterator[dict[str, Any]], port: str, remote: str) -> Iterator[Hop]:
    """The UDP packets to and from `remote` among a port's records; ARP and the hosts' own chatter pass there too."""
    start = ethernet.HEADER_BYTES if port.startswith("tap") else 0
    for record in records:
        packet = ipv4.parse(base64.b64decode(record["frame"]), start)
        if isinstance(packet, ipv4.Packet) and packet.protocol == ipv4.UDP:
            ends = address_text(packet.source), address_text(packet.destination)
            if remote in ends:
                yield port, " -> ".join(ends)
