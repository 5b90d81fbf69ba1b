"""The tunnel's nodes as the walk sees them: which can be reached, which node stands in, and which flows stay there.

While a node is unreachable, packets that are routed to it go to its fallback (`[peer.X] fallback`), or to the
fallback's own fallback, and so on. A flow that began on a fallback stays there while it lives, also when its node is
back: its remote end knows it by the fallback's address. A flow on its own node moves only when that node becomes
unreachable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from alias.types import AliasSettings
from bridge.walk.path import FlowEnds, flow_ends
from bridge.walk.settings import GatewaySettings
from wire import ipv4
from wire.ipv4 import Packet

MOST_FLOWS = 8192


class _Kept(NamedTuple):
    """A flow on another node than the route table says: `routed` is the table's node, `node` is where the flow is,
    `until` (ns) is when that is forgotten."""

    routed: str
    node: str
    until: int


class Nodes:
    """`unreachable`: nodes that packets cannot go to; the tunnel's owner sets it. `wanted`: unreachable nodes that
    packets were meant for, until the tunnel's owner takes them out and calls them."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.unreachable: set[str] = set()
        self.wanted: set[str] = set()
        self._chains: dict[str, tuple[str, ...]] = {}
        self._kept: dict[FlowEnds, _Kept] = {}  # the flow that is idle longest stands first
        self._alias = settings.alias
        self.reconfigure(settings, lambda _: None)

    def __len__(self) -> int:
        """How many flows are kept on another node than the table's."""
        return len(self._kept)

    def reconfigure(self, settings: GatewaySettings, routed: Callable[[int], str | None]) -> None:
        """Take other settings; `routed` tells the node of a remote address now. Flows that the table sends elsewhere
        now are forgotten."""
        self._alias = settings.alias
        self._chains = {peer.name: peer.fallbacks for peer in settings.peers if peer.fallbacks}
        self._kept = {
            ends: kept
            for ends, kept in self._kept.items()
            if kept.node in self._chains.get(kept.routed, ()) and routed(ends[3]) == kept.routed
        }

    def forget(self, now: int) -> None:
        """Forget flows that have been idle for too long; their next packet is decided anew."""
        self._kept = {ends: kept for ends, kept in self._kept.items() if kept.until > now}

    # Choosing

    def choose(self, node: str, packet: Packet, now: int) -> str | None:
        """The node that a packet goes to which is routed to `node`; None where neither `node` nor a fallback can be
        reached. Every unreachable node tried here is added to `wanted`, so that the tunnel calls it."""
        is_there = node not in self.unreachable
        if not is_there:
            self.wanted.add(node)
        chain = self._chains.get(node)
        if chain is None:
            return node if is_there else None
        ends = flow_ends(packet)
        kept = self._kept.pop(ends, None) if ends is not None else None
        if kept is not None and (kept.routed != node or kept.until <= now or kept.node in self.unreachable):
            kept = None
        chosen = kept.node if kept is not None else node if is_there else self._stand_in(chain)
        if chosen is None or chosen == node or ends is None:
            return chosen
        if len(self._kept) >= MOST_FLOWS:
            del self._kept[next(iter(self._kept))]
        self._kept[ends] = _Kept(node, chosen, now + idle_ns(self._alias, ends[0]))
        return chosen

    def _stand_in(self, chain: tuple[str, ...]) -> str | None:
        for other in chain:
            if other not in self.unreachable:
                return other
            self.wanted.add(other)
        return None

    def standing_in(self, node: str) -> tuple[str | None, str]:
        """The node that takes a new flow which is routed to an unreachable `node`, None where there is none, and the
        reason in words for people. Changes nothing."""
        chain = self._chains.get(node, ())
        for other in chain:
            if other not in self.unreachable:
                return other, f"{node} is unreachable, {other} is its fallback"
        more = f", and so is its fallback: {', '.join(chain)}" if chain else " and has no fallback"
        return None, f"{node} is unreachable{more}"


def idle_ns(alias: AliasSettings, protocol: int) -> int:
    """How long a silent flow is remembered: as long as its link would live."""
    idle = {ipv4.TCP: alias.tcp_established_ns, ipv4.ICMP: alias.icmp_timeout_ns}
    return idle.get(protocol, alias.udp_timeout_ns)
