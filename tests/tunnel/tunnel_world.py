"""Tunnels against each other under a virtual clock: a wire that delays, loses, repeats and reorders as it is told."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tunnel.effects import (
    Effects,
    Endpoint,
    Happening,
    Network,
    PeerConfig,
    PeerEvent,
    Received,
    Role,
    Stamps,
    TooBig,
    Unsent,
)
from tunnel.endpoint import Tunnel
from tunnel.messages import MessageKind, kind_of
from tunnel.primitives import public_key
from wire.drop import Drop
from wire.units import SECOND_NS, address_int, seconds_ns

EVERYTHING = (Network(0, 0),)
WALL_NS = 1_700_000_000 * SECOND_NS
DELAY_NS = 10_000_000
OUTER_HEADERS_BYTES = 28
ROUTER = bytes([198, 51, 100, 7])
KEYS = {
    name: bytes([number]) * 32
    for number, name in enumerate(("alice", "bob", "carol", "mallory", "relay", "second", "third"), start=1)
}
PUBLIC = {name: public_key(key) for name, key in KEYS.items()}
HOMES = {name: Endpoint(bytes([192, 0, 2, number]), 51820) for number, name in enumerate(KEYS, start=1)}

Fate = Callable[[bytes], list[int]]


def inner(
    size: int = 30, *, source: str = "10.0.0.1", destination: str = "10.0.0.2", mark: int = 0, total: int | None = None
) -> bytes:
    """An IPv4 packet, as far as the tunnel looks into it; `mark` makes it one of a kind."""
    head = b"\x45\0" + (size if total is None else total).to_bytes(2, "big") + mark.to_bytes(4, "big") + bytes(4)
    addresses = address_int(source).to_bytes(4, "big") + address_int(destination).to_bytes(4, "big")
    return (head + addresses).ljust(size, b"\xaa")


def peer_of(node: str, /, *, known: bool = True, **changes: object) -> PeerConfig:
    """How others configure that node."""
    config = PeerConfig(node, PUBLIC[node], EVERYTHING, HOMES[node] if known else None)
    return replace(config, **changes)


def kinds(effects: Effects) -> list[MessageKind | None]:
    """The kinds of the datagrams of a call."""
    return [kind_of(datagram) for _, datagram, _ in effects.datagrams]


@dataclass
class Sent:
    """A line of the log."""

    at: float
    by: str
    kind: MessageKind | None
    datagram: bytes
    to: Endpoint


@dataclass
class Node:
    """A tunnel with its address and all that it said."""

    name: str
    tunnel: Tunnel
    home: Endpoint
    packets: list[tuple[str, bytes]] = field(default_factory=list)
    events: list[PeerEvent] = field(default_factory=list)
    unsent: list[Unsent] = field(default_factory=list)
    drops: Counter[Drop] = field(default_factory=Counter)

    def happened(self, what: Happening) -> int:
        return sum(event.what is what for event in self.events)


class World:
    """Nodes on a wire. `fate` says after which delays a datagram arrives: none is lost, two is a duplicate.

    `widths`: the outer bytes that pass towards an address; a router there says what does not unless it `is_silent`.
    `plain`: nodes that speak nothing but WireGuard; here they have nothing to say but handshakes and keepalives.
    """

    def __init__(self, seed: int = 0) -> None:
        self.now = 100 * SECOND_NS
        self.rng = random.Random(seed)
        self.wall_offset_ns = WALL_NS
        self.nodes: dict[str, Node] = {}
        self.at: dict[Endpoint, Node] = {}
        self.log: list[Sent] = []
        self.fate: Fate = lambda datagram: [DELAY_NS]
        self.lost: list[bytes] = []
        self.widths: dict[bytes, int] = {}
        self.is_silent = False
        self.plain: set[str] = set()
        self.signals: list[TooBig] = []
        self._wire: list[tuple[int, int, Endpoint, Endpoint, bytes | TooBig]] = []
        self._number = 0

    def add(
        self,
        name: str,
        *peers: PeerConfig,
        stamps: dict[bytes, Stamps] | None = None,
        mtu_bytes: int = 1420,
        relays: bool = True,
    ) -> Node:
        """A node (or the node again, after a restart: it keeps what was written down)."""
        tunnel = Tunnel(
            KEYS[name],
            peers,
            self.now,
            wall_ns=lambda: self.wall_offset_ns + self.now,
            random_bytes=self.rng.randbytes,
            mtu_bytes=mtu_bytes,
            stamps=stamps,
            role=Role(name, relays),
        )
        node = self.nodes[name] = Node(name, tunnel, HOMES[name])
        self.at[node.home] = node
        return node

    def restart(self, node: Node, *peers: PeerConfig) -> None:
        """The process ends and begins anew with what it wrote down."""
        fresh = self.add(node.name, *peers, stamps=node.tunnel.stamps())
        node.tunnel = fresh.tunnel
        self.at.pop(fresh.home)
        self.nodes[node.name] = self.at[node.home] = node

    def roam(self, node: Node, address: str, port: int = 4000) -> None:
        """The node's datagrams come from elsewhere now."""
        self.at.pop(node.home)
        node.home = Endpoint(address_int(address).to_bytes(4, "big"), port)
        self.at[node.home] = node

    def send(self, node: Node, peer: str, *packets: bytes) -> Effects:
        return self.carry(node, node.tunnel.send(peer, packets, self.now))

    def carry(self, node: Node, effects: Effects) -> Effects:
        """Do what a call asked for."""
        node.packets += effects.packets
        node.events += effects.events
        node.unsent += effects.unsent
        node.drops.update(effects.drops)
        for to, datagram, _ in effects.datagrams:
            self.log.append(Sent(self.now / SECOND_NS - 100, node.name, kind_of(datagram), datagram, to))
            if node.name in self.plain and kind_of(datagram) is MessageKind.DATA and len(datagram) > 32:
                continue
            width = self.widths.get(to.address, 1 << 16)
            if len(datagram) + OUTER_HEADERS_BYTES > width:
                self.lost.append(datagram)
                if not self.is_silent:
                    self._push(DELAY_NS, node.home, to, TooBig(to, width, datagram[:548], ROUTER))
                continue
            delays = self.fate(datagram)
            if not delays:
                self.lost.append(datagram)
            for delay in delays:
                self._push(delay, to, node.home, datagram)
        return effects

    def _push(self, delay_ns: int, to: Endpoint, source: Endpoint, what: bytes | TooBig) -> None:
        self._number += 1
        heapq.heappush(self._wire, (self.now + delay_ns, self._number, to, source, what))

    def signal(self, node: Node, *signals: TooBig) -> Effects:
        """ICMP errors reach a node, from whomever."""
        return self.carry(node, node.tunnel.path_signals(signals, self.now))

    def deliver(self, to: Endpoint, source: Endpoint, datagram: bytes | TooBig) -> None:
        """A datagram, or an ICMP error about one, reaches an address, where somebody is or not."""
        node = self.at.get(to)
        if isinstance(datagram, TooBig):
            self.signals.append(datagram)
            if node is not None:
                self.signal(node, datagram)
        elif node is not None:
            self.carry(node, node.tunnel.receive([Received(datagram, source)], self.now))

    def run(self, seconds: float) -> None:
        """Let time pass: deliveries and deadlines at their own time."""
        end = self.now + seconds_ns(seconds)
        while True:
            due = [deadline for node in self.nodes.values() if (deadline := node.tunnel.next_deadline()) is not None]
            if self._wire:
                due.append(self._wire[0][0])
            following = min(due, default=end + 1)
            if following > end:
                break
            self.now = max(self.now, following)
            while self._wire and self._wire[0][0] <= self.now:
                _, _, to, source, datagram = heapq.heappop(self._wire)
                self.deliver(to, source, datagram)
            for node in list(self.nodes.values()):
                self.carry(node, node.tunnel.tick(self.now))
                deadline = node.tunnel.next_deadline()
                assert deadline is None or deadline > self.now
        self.now = end

    def sent(self, by: str, kind: MessageKind, since: float = 0.0) -> list[Sent]:
        return [line for line in self.log if line.by == by and line.kind is kind and line.at >= since]

    def mtu(self, node: Node, peer: str) -> int:
        """The longest packet that a node sends to a peer."""
        return next(status.mtu_bytes for status in node.tunnel.status(self.now) if status.name == peer)

    def keepalives(self, by: str, since: float = 0.0) -> list[Sent]:
        return [line for line in self.sent(by, MessageKind.DATA, since) if len(line.datagram) == 32]

    @property
    def seconds(self) -> float:
        return self.now / SECOND_NS - 100


def pair(seed: int = 0, *, psk: bytes = bytes(32), keepalive_s: int = 0) -> tuple[World, Node, Node]:
    """Alice, who knows where Bob is, and Bob, who learns it; no session yet."""
    world = World(seed)
    alice = world.add("alice", peer_of("bob", psk=psk, persistent_keepalive_s=keepalive_s))
    bob = world.add("bob", peer_of("alice", known=False, psk=psk))
    return world, alice, bob


def connected(seed: int = 0) -> tuple[World, Node, Node]:
    """The same with a session that Alice asked for at second 0."""
    world, alice, bob = pair(seed)
    world.send(alice, "bob", inner())
    world.run(1)
    assert bob.packets == [("alice", inner())]
    return world, alice, bob


RELAYED = {"alice": "bob", "bob": "alice"}


def star_peers(name: str, **changes: object) -> list[PeerConfig]:
    """How Alice or Bob is configured, who reach each other through the node `relay`; `changes` are the relay's."""
    return [peer_of("relay", **changes), peer_of(RELAYED[name], known=False, via="relay")]


def star(seed: int = 0, *, relays: bool = True, **changes: object) -> World:
    """Alice and Bob behind `relay`, which learns where they are, and Mallory, a peer of the relay's, too."""
    world = World(seed)
    learned = [peer_of(name, known=False) for name in ("alice", "bob", "mallory")]
    world.add("relay", *learned, relays=relays)
    for name in RELAYED:
        world.add(name, *star_peers(name, **changes))
    world.add("mallory", peer_of("relay"))
    return world


def talking(seed: int = 0, **changes: object) -> World:
    """The same with sessions of all of them with the relay, and between Alice and Bob."""
    world = star(seed, **changes)
    world.carry(world.nodes["mallory"], world.nodes["mallory"].tunnel.call("relay", world.now))
    world.run(1)
    world.send(world.nodes["alice"], "bob", inner())
    world.run(1)
    assert world.nodes["bob"].packets == [("alice", inner())]
    assert world.nodes["mallory"].happened(Happening.SESSION)
    return world
