"""Relaying: who may relay, for whom, and how it cannot be abused.

A node that is reached through a relay has an endpoint of its own kind: its id (`tunnel.envelope.node_id`), and the name
of the peer that relays. `Relaying.wrap` puts datagrams for such endpoints into envelopes, as the last step of every
call of the tunnel. `open` takes an envelope in: it returns the message in it where that is for us, or passes the
envelope on. The functions stand in the order of an envelope's life.

The *next hop* of a peer is the peer that its envelopes go to and come from: itself, where it is reached directly, or
else the relay at the end of its chain of `via`. One rule holds at every node: an envelope is accepted only from the
next hop of its source. Therefore no peer can speak for another one, and an envelope cannot go round in circles.

- An envelope for us: its source is a peer that has a `via` here, and the message must be that peer's own. The message
  is handled like one that came directly, but it is never relayed again, and it moves no endpoint.
- An envelope for another peer: where we relay, and some hops are left, one envelope of the same size goes to the next
  hop, which is never the peer that it came from. Nothing waits here: without a session the envelope is dropped, and a
  session is asked for.
- A refusal is not told to anybody. Each has a drop reason of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, groupby
from typing import Final

from tunnel import envelope
from tunnel.constants import REKEY_TIMEOUT_NS
from tunnel.ecn import HANDSHAKE_TOS
from tunnel.effects import Datagram, Effects, Endpoint, PeerConfig, Received, Role
from tunnel.envelope import HOPS, Envelope, node_id
from tunnel.indices import IndexEntry, IndexTable
from tunnel.messages import MessageKind, kind_of
from tunnel.peers.peer import Peer
from wire.drop import Drop

HELD_DATAGRAMS: Final = 32
"""Datagrams that wait for a session with one relay."""
HELD_NS: Final = REKEY_TIMEOUT_NS
"""They wait no longer: a handshake message is repeated after that time, and data is worth nothing by then."""
CALL_AGAIN_S: Final = 120
"""The persistent keepalive of a relay that has none: often enough to keep a session, or to get one."""


# The configuration


def with_next_hops(configs: Sequence[PeerConfig], role: Role) -> list[PeerConfig]:
    """The peers with the consequences of `via`: a peer behind a relay has its id and its next hop as endpoint, and
    a relay that one of them needs has a persistent keepalive.

    Raises `ValueError` where a chain of `via` ends nowhere, two ids are the same, or a node without a name has a peer
    with a `via`.
    """
    vias = {config.name: config.via for config in configs}
    next_hops = {config.name: _next_hop(config.name, vias) for config in configs if config.via}
    if next_hops and not role.name:
        raise ValueError("a node without a name of its own cannot be relayed to")
    clash = same_id([role.name, *vias] if role.name else vias)
    if clash is not None:
        raise ValueError(f"the names {clash[0]} and {clash[1]} have the same id")
    relays = set(next_hops.values())
    found = []
    for config in configs:
        next_hop = next_hops.get(config.name)
        if next_hop is not None:
            found.append(replace(config, endpoint=Endpoint(node_id(config.name), 0, next_hop)))
        elif config.name in relays and not config.persistent_keepalive_s:
            found.append(replace(config, persistent_keepalive_s=CALL_AGAIN_S))
        else:
            found.append(config)
    return found


def _next_hop(name: str, vias: Mapping[str, str]) -> str:
    seen = [name]
    while following := vias[seen[-1]]:
        if following not in vias or following in seen:
            raise ValueError(f"{' via '.join([*seen, following])} leads nowhere")
        seen.append(following)
    return seen[-1]


def same_id(names: Iterable[str], id_of: Callable[[str], bytes] = node_id) -> tuple[str, str] | None:
    """The first two names that have the same id; None where all ids differ."""
    names = list(names)
    if len({id_of(name) for name in names}) == len(names):
        return None
    return next((pair for pair in combinations(names, 2) if id_of(pair[0]) == id_of(pair[1])), None)


class Relaying:
    """The ids, next hops and held datagrams of a tunnel. `role`: our name, and whether we relay."""

    __slots__ = ("_by_id", "_by_name", "_held", "_indices", "_own", "_received", "is_used", "role")

    def __init__(self, role: Role, indices: IndexTable[Peer]) -> None:
        self._indices = indices
        self.role = role
        self.is_used = False
        self._own = b""
        self._by_id: dict[bytes, Peer] = {}
        self._by_name: Mapping[str, Peer] = {}
        self._held: dict[str, deque[tuple[int, Envelope]]] = {}  # by next hop, with the time
        self._received: dict[IndexEntry[Peer], tuple[Endpoint, int]] = {}  # bytes of this burst

    def configure(self, role: Role, by_name: Mapping[str, Peer], out: Effects) -> None:
        """Take over peers that `with_next_hops` returned."""
        self.role = role
        self._own = node_id(role.name) if role.name else b""
        self._by_name = by_name
        self._by_id = {node_id(name): peer for name, peer in by_name.items()}
        self.is_used = any(peer.config.via for peer in by_name.values())
        next_hops = {peer.endpoint.via for peer in by_name.values() if peer.endpoint is not None}
        for next_hop in self._held.keys() - next_hops:
            for _ in self._held.pop(next_hop):
                out.drop(Drop.TUNNEL_RELAY_QUEUE)

    def _next_hop_to(self, node: bytes) -> Peer | None:
        """The next hop of the node with this id; None where the id is not configured."""
        peer = self._by_id.get(node)
        if peer is None or not peer.config.via:
            return peer
        assert peer.endpoint is not None, "a peer behind a relay has its endpoint by configuration"
        return self._by_name[peer.endpoint.via]

    # At the source

    def wrap(self, now: int, out: Effects) -> None:
        """Put datagrams for nodes behind a relay into envelopes. Without a session with the relay they are held for a
        moment, and a session is asked for."""
        if self._held:
            self._release(now, out)
        leaving, out.datagrams = out.datagrams, []
        for next_hop, run in groupby(leaving, _via):
            if not next_hop:
                out.datagrams += run
                continue
            envelopes = [Envelope(HOPS, self._own, to.address, message, tos) for to, message, tos in run]
            if not self._by_name[next_hop].carry(envelopes, now, out):
                held = self._held.setdefault(next_hop, deque())
                held.extend((now, one) for one in envelopes)
                while len(held) > HELD_DATAGRAMS:
                    held.popleft()
                    out.drop(Drop.TUNNEL_RELAY_QUEUE)

    def _release(self, now: int, out: Effects) -> None:
        """Send held envelopes where there is a session by now, and drop those that were held too long."""
        for next_hop, held in list(self._held.items()):
            while held and now - held[0][0] >= HELD_NS:
                held.popleft()
                out.drop(Drop.TUNNEL_RELAY_QUEUE)
            if not held or self._by_name[next_hop].carry([one for _, one in held], now, out):
                del self._held[next_hop]

    # At the next hop

    def open(self, received: Received, now: int, out: Effects) -> Received | None:
        """Take in a datagram of kind RELAYED. Returns the message in it where that is for us, else None."""
        datagram, came_from, ecn = received
        receiver, counter = envelope.named(datagram)
        entry = self._indices.find(receiver, counter, now)
        if isinstance(entry, Drop):
            out.drop(entry)
            return None
        session, neighbour = entry.session, entry.owner
        address = envelope.address_in(datagram, session.keys.receive, counter)
        if address is None:
            out.drop(Drop.TUNNEL_AUTHENTICATION)
            return None
        accepted = session.window.accept(counter)
        assert accepted, "no other message was taken in between"
        _, size = self._received.get(entry, (came_from, 0))
        self._received[entry] = came_from, size + len(datagram)
        found = envelope.read(address, datagram)
        if found is None:
            out.drop(Drop.TUNNEL_RELAY_MALFORMED)
            return None
        if self._next_hop_to(found.source) is not neighbour:
            out.drop(Drop.TUNNEL_RELAY_SOURCE)
            return None
        if found.destination != self._own:
            reason = self._pass_on(found, neighbour, ecn, now, out)
            if reason is not None:
                out.drop(reason)
            return None
        if not self._is_of(found.source, found.message):
            out.drop(Drop.TUNNEL_RELAY_SOURCE)
            return None
        return Received(found.message, Endpoint(found.source, 0, neighbour.config.name), ecn)

    def _is_of(self, node: bytes, message: bytes) -> bool:
        """True where the node, which must be behind a relay, may have sent the message. For a handshake message only
        its content shows the sender: `Tunnel` asks `Peer.may_be_at` then."""
        peer = self._by_id[node]
        if not peer.config.via:  # it is reached directly, and needs no envelope
            return False
        if kind_of(message) is not MessageKind.DATA:
            return True
        entry = self._indices.entries.get(envelope.named(message)[0])
        return entry is None or entry.owner is peer

    def _pass_on(self, found: Envelope, neighbour: Peer, ecn: int, now: int, out: Effects) -> Drop | None:
        """Send an envelope to the next hop, with the congestion mark of its datagram (RFC 3168); or the reason to drop
        it."""
        if not self.role.relays:
            return Drop.TUNNEL_RELAY_OFF
        if not found.hops:
            return Drop.TUNNEL_RELAY_HOPS
        following = self._next_hop_to(found.destination)
        if following is None:
            return Drop.TUNNEL_RELAY_DESTINATION
        if following is neighbour:
            return Drop.TUNNEL_RELAY_BACK
        tos = ecn if kind_of(found.message) is MessageKind.DATA else ecn | HANDSHAKE_TOS
        passed = following.carry([found._replace(hops=found.hops - 1, tos=tos)], now, out)
        return None if passed else Drop.TUNNEL_RELAY_NO_SESSION

    def account(self, now: int, out: Effects) -> None:
        """Account the envelopes of a burst to their sessions, after the whole burst is opened.

        It must not be done earlier: it may end a session whose data is still to be opened.
        """
        received, self._received = self._received, {}
        for entry, (source, size) in received.items():
            entry.owner.received(entry.session, source, size, now, out, has_data=True)


def _via(datagram: Datagram) -> str:
    return datagram.endpoint.via
