"""Relaying by destination id: who may, for whom, and what it must not become.

A node that is reached through a relay has an endpoint of its own kind: its id, and the name of the neighbour that
passes envelopes on to it. `Relaying.wrap` puts what is for such endpoints into envelopes, the last thing of every call
of the tunnel; `open` takes an envelope in, and either gives back the message in it, which is for us, or hands the
envelope on to the next neighbour. The functions stand in the order of an envelope's life.

The *way* of a peer is the neighbour that its envelopes go to and come from: itself, where it is reached directly, else
the relay at the end of its chain of `via`. One rule holds at every node: an envelope is taken only from the neighbour
that is the way of its source. It is what keeps a neighbour from speaking for others, and what breaks circles.

- Ours: the source is a peer that we say `via` of, and the message must be its own. It is handled as one that came
  directly, but it is never relayed again, and it moves no endpoint.
- Another peer's: where we relay, and some hops are left, one envelope of the same size goes to its way, which is never
  the neighbour that it came from. Nothing waits here: without a session it is dropped, and a session asked for.
- Nobody hears of what was refused. Each refusal is a reason of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, groupby
from typing import Final

from tunnel import envelope
from tunnel.ecn import HANDSHAKE_TOS
from tunnel.effects import Datagram, Effects, Endpoint, PeerConfig, Received, Role
from tunnel.envelope import HOPS, Envelope, node_id
from tunnel.messages import Kind, kind_of
from tunnel.peer import Peer
from tunnel.session import IndexTable, Session
from tunnel.timers import REKEY_TIMEOUT_NS
from wire.drop import Drop

HELD_DATAGRAMS: Final = 32
HELD_NS: Final = REKEY_TIMEOUT_NS
"""A handshake message is repeated after that time, and data is worth nothing by then."""
CALL_AGAIN_S: Final = 120
"""How often a relay hears of us that has no persistent keepalive: often enough to have a session, or to get one."""


# The configuration


def with_ways(configs: Sequence[PeerConfig], role: Role) -> list[PeerConfig]:
    """The peers with what `via` means for them: a peer behind a relay has its id and its way as endpoint, a relay that
    one of them needs is called again and again. `ValueError` where a way leads nowhere, or two ids are one."""
    vias = {config.name: config.via for config in configs}
    ways = {config.name: _way(config.name, vias) for config in configs if config.via}
    if ways and not role.name:
        raise ValueError("a node without a name of its own cannot be relayed to")
    clash = same_id([role.name, *vias] if role.name else vias)
    if clash is not None:
        raise ValueError(f"the names {clash[0]} and {clash[1]} have the same id")
    relays = set(ways.values())
    found = []
    for config in configs:
        way = ways.get(config.name)
        if way is not None:
            config = replace(config, endpoint=Endpoint(node_id(config.name), 0, way))  # noqa: PLW2901 - the same peer
        elif config.name in relays and not config.persistent_keepalive_s:
            config = replace(config, persistent_keepalive_s=CALL_AGAIN_S)  # noqa: PLW2901 - the same peer
        found.append(config)
    return found


def _way(name: str, vias: Mapping[str, str]) -> str:
    seen = [name]
    while following := vias[seen[-1]]:
        if following not in vias or following in seen:
            raise ValueError(f"{' via '.join([*seen, following])} leads nowhere")
        seen.append(following)
    return seen[-1]


def same_id(names: Iterable[str], id_of: Callable[[str], bytes] = node_id) -> tuple[str, str] | None:
    """The first two names that have one id."""
    names = list(names)
    if len({id_of(name) for name in names}) == len(names):
        return None
    return next((pair for pair in combinations(names, 2) if id_of(pair[0]) == id_of(pair[1])), None)


class Relaying:
    """What a tunnel knows of ids, ways and relays."""

    __slots__ = ("_by_id", "_by_name", "_heard", "_held", "_indices", "_own", "is_used", "role")

    def __init__(self, role: Role, indices: IndexTable) -> None:
        self._indices = indices
        self.role = role
        self.is_used = False
        self._own = b""
        self._by_id: dict[bytes, Peer] = {}
        self._by_name: Mapping[str, Peer] = {}
        self._held: dict[str, deque[tuple[int, Envelope]]] = {}  # by neighbour, with the time
        self._heard: dict[Session, tuple[Endpoint, int]] = {}

    def configure(self, role: Role, by_name: Mapping[str, Peer], out: Effects) -> None:
        """Take over peers, after `with_ways` had no objection."""
        self.role = role
        self._own = node_id(role.name) if role.name else b""
        self._by_name = by_name
        self._by_id = {node_id(name): peer for name, peer in by_name.items()}
        self.is_used = any(peer.config.via for peer in by_name.values())
        ways = {peer.endpoint.via for peer in by_name.values() if peer.endpoint is not None}
        for way in self._held.keys() - ways:
            for _ in self._held.pop(way):
                out.drop(Drop.TUNNEL_RELAY_QUEUE)

    def _way_to(self, node: bytes) -> Peer | None:
        """The neighbour that envelopes for a node go to, and from which those of that node come."""
        peer = self._by_id.get(node)
        if peer is None or not peer.config.via:
            return peer
        assert peer.endpoint is not None, "a peer behind a relay has its endpoint by configuration"
        return self._by_name[peer.endpoint.via]

    # At the source

    def wrap(self, now: int, out: Effects) -> None:
        """Put datagrams for nodes behind a relay into envelopes, or keep them for a moment where there is no session
        with the relay; one is asked for."""
        if self._held:
            self._release(now, out)
        leaving, out.datagrams = out.datagrams, []
        for way, run in groupby(leaving, _via):
            if not way:
                out.datagrams += run
                continue
            envelopes = [Envelope(HOPS, self._own, to.address, message, tos) for to, message, tos in run]
            if not self._by_name[way].carry(envelopes, now, out):
                held = self._held.setdefault(way, deque())
                held.extend((now, one) for one in envelopes)
                while len(held) > HELD_DATAGRAMS:
                    held.popleft()
                    out.drop(Drop.TUNNEL_RELAY_QUEUE)

    def _release(self, now: int, out: Effects) -> None:
        """What waited leaves where there is a session by now; what waited too long does not leave at all."""
        for way, held in list(self._held.items()):
            while held and now - held[0][0] >= HELD_NS:
                held.popleft()
                out.drop(Drop.TUNNEL_RELAY_QUEUE)
            if not held or self._by_name[way].carry([one for _, one in held], now, out):
                del self._held[way]

    # At the next hop

    def open(self, received: Received, now: int, out: Effects) -> Received | None:
        """Take in a datagram of kind RELAYED: the message in it where that is for us, else None."""
        datagram, came_from, ecn = received
        receiver, counter = envelope.named(datagram)
        session = self._indices.find(receiver, counter, now)
        if isinstance(session, Drop):
            out.drop(session)
            return None
        address = envelope.address_in(datagram, session.keys.receive, counter)
        if address is None:
            out.drop(Drop.TUNNEL_AUTHENTICATION)
            return None
        accepted = session.window.accept(counter)
        assert accepted, "no other message was taken in between"
        _, size = self._heard.get(session, (came_from, 0))
        self._heard[session] = came_from, size + len(datagram)
        found = envelope.read(address, datagram)
        if found is None:
            out.drop(Drop.TUNNEL_RELAY_MALFORMED)
            return None
        neighbour = session.peer
        if self._way_to(found.source) is not neighbour:
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
        """True where a node that we reach through a relay may have sent a message. (`Tunnel` asks again where only the
        handshake shows whose the message is.)"""
        peer = self._by_id[node]
        if not peer.config.via:  # a neighbour has no need of an envelope
            return False
        if kind_of(message) is not Kind.DATA:
            return True
        session = self._indices.sessions.get(envelope.named(message)[0])
        return session is None or session.peer is peer

    def _pass_on(self, found: Envelope, neighbour: Peer, ecn: int, now: int, out: Effects) -> Drop | None:
        """One envelope to the next hop, with what a router on the way has marked (RFC 3168); or why not."""
        if not self.role.relays:
            return Drop.TUNNEL_RELAY_OFF
        if not found.hops:
            return Drop.TUNNEL_RELAY_HOPS
        following = self._way_to(found.destination)
        if following is None:
            return Drop.TUNNEL_RELAY_DESTINATION
        if following is neighbour:
            return Drop.TUNNEL_RELAY_BACK
        tos = ecn if kind_of(found.message) is Kind.DATA else ecn | HANDSHAKE_TOS
        passed = following.carry([found._replace(hops=found.hops - 1, tos=tos)], now, out)
        return None if passed else Drop.TUNNEL_RELAY_NO_SESSION

    def settle(self, now: int, out: Effects) -> None:
        """A burst is through: what came in envelopes counts for the sessions that they came under.

        Not before: a session may end by it whose data is still to be opened.
        """
        if not self._heard:
            return
        heard, self._heard = self._heard, {}
        for session, (source, size) in heard.items():
            session.peer.received(session, source, size, now, out, has_data=True)


def _via(datagram: Datagram) -> str:
    return datagram.endpoint.via
