"""The tunnel's nodes as the walk sees them: which can be reached, who stands in for whom, and which flows stay where.

While a node is unreachable, packets that are routed to it go to its fallback (`[peer.X] fallback`), or to the
fallback's own, as far as that goes. A flow that began there stays there while it lives, also when its node is back: its
remote end knows it by the fallback's address. A flow on its own node moves only when that node becomes unreachable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bridge.config.model import AliasTable, Config
from bridge.walk.reply_to import Ends, ends_of
from route.table import node_of, vpn_target
from wire import ipv4
from wire.ipv4 import Packet
from wire.units import seconds_ns

MOST_FLOWS = 8192

_PORT = "vpn"


class _Kept(NamedTuple):
    """A flow that is on another node than the table says: which one the table says, where it is, and until when."""

    routed: str
    node: str
    until: int


class Nodes:
    """`unreachable`: nodes that packets cannot go to; whoever runs the tunnel says which. `wanted`: those of them that
    packets were meant for, until somebody takes them out and calls them."""

    def __init__(self, config: Config) -> None:
        self.unreachable: set[str] = set()
        self.wanted: set[str] = set()
        self.default: str | None = None
        self._chains: dict[str, tuple[str, ...]] = {}
        self._kept: dict[Ends, _Kept] = {}  # the one idle longest first
        self._alias = config.alias
        self.reconfigure(config, lambda _: None)

    def __len__(self) -> int:
        """How many flows are kept on another node than the table's."""
        return len(self._kept)

    def reconfigure(self, config: Config, routed: Callable[[int], str | None]) -> None:
        """Take a new configuration; `routed` tells the node of a remote address now. Flows that are decided otherwise
        are forgotten."""
        self.default = config.default_node
        self._alias = config.alias
        self._chains = {name: chain_of(config, name) for name, peer in config.peer.items() if peer.fallback}
        self._kept = {
            ends: kept
            for ends, kept in self._kept.items()
            if kept.node in self._chains.get(kept.routed, ()) and routed(ends[3]) == kept.routed
        }

    def forget(self, now: int) -> None:
        """Let go of flows that have been idle for too long: they would be chosen for anew."""
        self._kept = {ends: kept for ends, kept in self._kept.items() if kept.until > now}

    # Ports

    def port(self, node: str) -> str:
        """The walk's name of a node's port: `vpn` for the default node."""
        return _PORT if node == self.default else vpn_target(node)

    def node_at(self, port: str) -> str | None:
        """The node behind a port's name; None where there is none (`vpn` without a default node, other ports)."""
        if port == _PORT:
            return self.default
        return node_of(port)

    # Choosing

    def choose(self, node: str, packet: Packet, now: int) -> str | None:
        """The node that a packet goes to which is routed to `node`; None where neither it nor any that stands in for it
        can be reached. Whoever cannot be reached, and was in question, is wanted."""
        is_there = node not in self.unreachable
        if not is_there:
            self.wanted.add(node)
        chain = self._chains.get(node)
        if chain is None:
            return node if is_there else None
        ends = ends_of(packet)
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
        """For people: the node that a new flow goes to which is routed to an unreachable one, and why; nothing
        changes."""
        chain = self._chains.get(node, ())
        for other in chain:
            if other not in self.unreachable:
                return other, f"{node} is unreachable, {other} is its fallback"
        more = f", and so is its fallback: {', '.join(chain)}" if chain else " and has no fallback"
        return None, f"{node} is unreachable{more}"


def chain_of(config: Config, node: str) -> tuple[str, ...]:
    """The nodes that stand in for one, in their order; a circle, which `check` refuses, ends where it closes."""
    chain: list[str] = []
    following = config.peer[node].fallback
    while following is not None and following != node and following not in chain:
        chain.append(following)
        following = config.peer[following].fallback if following in config.peer else None
    return tuple(chain)


def idle_ns(alias: AliasTable, protocol: int) -> int:
    """How long a silent flow is remembered: as long as its link would live."""
    idle_s = {ipv4.TCP: alias.tcp_established_timeout, ipv4.ICMP: alias.icmp_timeout}.get(protocol, alias.udp_timeout)
    return seconds_ns(idle_s)
