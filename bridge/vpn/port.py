"""The ports `vpn` and `vpn:NODE` of the walk, joined to the tunnel and its UDP sockets.

Packets that the walk sends to a peer wait until the burst that they came with is walked. Then they are sealed and sent
together; a super-frame is cut into packets first. Datagrams are opened in bursts, merged into super-frames where that
is possible, and walked as frames of the peer's port. The tunnel's timers are timers of the loop.

Every call from outside is a *turn* (`_turn`). Within it, each call of the tunnel returns `Effects`, and `_emit` does at
once the part of them that nothing may overtake: stamps are written down, datagrams sent, drops counted. The
consequences for the walk are queued, and carried out one after the other by `_carry_out_all`, which never runs inside
itself. At the end of a turn the lanes are renewed, if anything changed that they rest on, and the timer is armed.

A peer is unreachable for the walk, which answers with ICMP 3/1, while it has no endpoint or its last handshake was in
vain. A packet for it then asks for another handshake. The name of its endpoint is looked up again while its calls stay
without an answer (`bridge.vpn.endpoint_names`).

This module reads no clock of its own and opens nothing: the loop's clock, the sockets and a resolver are handed in.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Protocol

from bridge.config.into_tunnel import Peers, prefix_of
from bridge.loop.loop import Loop, Timer
from bridge.vpn.endpoint_names import EndpointNames, Resolve
from bridge.vpn.lanes import PeerLanes
from bridge.walk.forwarding.peer_prefixes import Announced
from bridge.walk.gateway import Gateway
from route.table import vpn_target
from tunnel.effects import Datagram, Effects, Endpoint, Happening, Network, Received, Stamps, Status, TooBig, Verdict
from tunnel.endpoint import Tunnel
from tunnel.primitives import is_low_order
from wire import gso as gso_headers
from wire import ipv4
from wire.coalesce import coalesce
from wire.drop import Drop
from wire.gso import GsoHeader
from wire.units import SECOND_NS

log = logging.getLogger(__name__)

BURST_DATAGRAMS = 256
STRANGE_DATAGRAMS = 64
"""The burst behind one of which more than half of this number came to Python is no longer than this: a flood of
handshakes costs as much as a flood of walks, and the other ports wait meanwhile."""
QUEUED_PACKETS = 256
"""So many packets are sealed at once: a burst of super-frames is many packets."""
TELL_MTU_AFTER_S = 30.0
_RETRY_NS = SECOND_NS
"""A tick that fails by a bug of ours is tried again after this time."""
_PADDED_BYTES = 16
"""The far end pads packets to a multiple of this, up to its own MTU; it does not know of a narrower path."""
_PORT = "vpn"
"""The tunnel's drops are counted at this port."""
_OWED = frozenset({Drop.TUNNEL_NO_PEER, Drop.TUNNEL_NO_ENDPOINT, Drop.TUNNEL_GAVE_UP})
"""Reasons that the sender is told (ICMP 3/1). A queue that is full is congestion, and silent."""
_SILENCE = frozenset({Happening.UNANSWERED, Happening.GAVE_UP})
_CHANGES = frozenset({Happening.SESSION, Happening.MOVED, Happening.MTU}) | _SILENCE
_ANNOUNCEMENTS = frozenset({Happening.ANNOUNCED, Happening.ANSWERED})
_LANE_DROPS = (Drop.TUNNEL_AUTHENTICATION, Drop.TUNNEL_REPLAY, Drop.PORT_MALFORMED, Drop.PORT_FULL)
_TOLD_PREFIXES = 8
"""Prefixes of an announcement in one line of the log."""


class Datagrams(Protocol):
    """The tunnel's sockets, as `bridge.ports.udp.datagrams.DatagramSocket` has them."""

    def fileno(self) -> int:
        """Readable while datagrams or signals wait."""

    def read_burst(self, limit: int) -> list[Received]:
        """The datagrams that wait, about `limit` at most."""

    def read_signals(self) -> list[TooBig]:
        """The signals about datagrams that were too big, up to the last `read_burst`."""

    def send_burst(self, datagrams: Sequence[Datagram]) -> Counter[Drop]:
        """Send in order. Returns the number of refused datagrams by reason."""


class VpnPort:
    """The only holder of the configured peers: it hands them to the tunnel, to the loop and to the walk.

    `tunnel`: has no peers yet; `peers`: the configuration; `unserved`: peers of the walk that the tunnel does not
    serve; `keep`: writes the tunnel's stamps down; `resolve`: looks a host name up, and answers later, in the loop;
    `lanes`: the compiled path of packets, None where Python seals and opens all of them.

    Raises `ValueError` where the tunnel refuses the peers.
    """

    def __init__(
        self,
        loop: Loop,
        gateway: Gateway,
        tunnel: Tunnel,
        datagrams: Datagrams,
        peers: Peers,
        *,
        keep: Callable[[Mapping[bytes, Stamps]], None],
        resolve: Resolve,
        unserved: set[str],
        lanes: PeerLanes | None = None,
    ) -> None:
        self.tunnel = tunnel
        self._loop = loop
        self._gateway = gateway
        self._datagrams = datagrams
        self._lanes = lanes
        self._keep = keep
        self._names = EndpointNames(loop, resolve, self._endpoint_of, self._resolved)
        self._mtu_untold: set[str] = set()  # peers whose MTU is to be logged once its search is over
        self._ports: dict[str, str] = {}  # by peer; a reload makes another dictionary
        self._most_datagrams = BURST_DATAGRAMS
        self._queues: dict[str, list[bytes]] = {}  # by peer
        self._queued = 0
        self._unserved = unserved
        self._consequences: deque[tuple[Effects, dict[str, str]]] = deque()  # with the ports of their time
        self._turns = 0  # that are open, one inside the other
        self._is_carrying_out = False
        self._has_outdated_lanes = False
        self._has_doubtful_paths = False
        self._has_new_announcements = False
        self._timer: Timer | None = None
        self._on_endpoints: Callable[[frozenset[bytes]], None] = lambda _addresses: None
        self._told_endpoints: frozenset[bytes] = frozenset()
        self._configure(peers, unserved)
        loop.add(datagrams.fileno(), self._receive)
        loop.after_bursts(self.flush)

    def begin(self) -> None:
        """Forwarding begins. Peers of an earlier run are called, now or once their names are found: they may still seal
        for that run, and would notice only after 15 s of silence that nobody opens it."""
        with self._turn() as now:
            known = self.tunnel.known()
            for peer in known:
                self._emit(self.tunnel.call(peer, now))
            self._names.call_once_found(known)

    # Turns

    @contextmanager
    def _turn(self) -> Iterator[int]:
        """A call from outside: yields the time, and ends with the consequences, the lanes and the timer. Where a bug
        ends the body, the next turn does that."""
        now = self._loop.clock()
        self._turns += 1
        try:
            yield now
            if self._turns == 1:
                self._carry_out_all(now)
                self._arm()
        finally:
            self._turns -= 1

    def _emit(self, effects: Effects) -> None:
        """Do the part of effects that nothing may overtake, and queue their consequences."""
        if any(event.what is Happening.STAMPED for event in effects.events):
            self._keep(self.tunnel.stamps())  # before a datagram with the stamp leaves
        if effects.datagrams:
            self._send(effects.datagrams)
        for reason, count in effects.drops.items():
            self._count(reason, count)
        if effects.events or effects.unsent or effects.packets:
            self._consequences.append((effects, self._ports))

    def _send(self, datagrams: Sequence[Datagram]) -> None:
        for reason, count in self._datagrams.send_burst(datagrams).items():
            self._count(reason, count)

    def _carry_out_all(self, now: int) -> None:
        """Carry out consequences until none is left, also those that arise meanwhile. Within itself it does nothing."""
        if self._is_carrying_out:
            return
        self._is_carrying_out = True
        try:
            while self._consequences:
                self._carry_out(*self._consequences.popleft(), now)
            self._announce_to_walk()
            self._renew_lanes()
        finally:
            self._is_carrying_out = False

    def _carry_out(self, effects: Effects, ports: dict[str, str], now: int) -> None:
        """The consequences of one call of the tunnel: events first, because packets rest on them."""
        happened = {event.what for event in effects.events}
        if not happened.isdisjoint(_CHANGES):
            self._peers_changed(effects)
            self._tell_walk(now)
            self._has_outdated_lanes = True
        if not happened.isdisjoint(_ANNOUNCEMENTS):
            self._log_announcements(effects, now)
            self._has_new_announcements = True
        self._announce_to_walk()
        self._renew_lanes()
        for peer, packet, reason in effects.unsent:
            port = ports.get(peer)
            if port is None:
                continue
            if reason is Drop.TUNNEL_TOO_BIG:
                self._fit(peer, port, packet, now)
            elif reason in _OWED:
                self._loop.carry_out(self._gateway.undelivered(port, packet, now))
        for peer, run in groupby(effects.packets, key=itemgetter(0)):
            self._loop.walk(ports[peer], coalesce([packet for _, packet in run]))

    def _announce_to_walk(self) -> None:
        """Tell the walk which announced prefixes each peer owns, if that may have changed."""
        if self._has_new_announcements:
            self._has_new_announcements = False
            self._gateway.announce(self._announced())

    def _renew_lanes(self) -> None:
        """Tell the lanes what has changed in the tunnel."""
        if self._lanes is not None and self._has_outdated_lanes:
            is_sure, self._has_doubtful_paths = not self._has_doubtful_paths, False
            self._has_outdated_lanes = False
            self._lanes.renew(self.tunnel, self._ports, is_sure=is_sure)

    def _arm(self) -> None:
        """Set the loop's timer to the tunnel's next deadline. A timer that is early does no harm."""
        due = self.tunnel.next_deadline()
        if due is None or (self._timer is not None and self._timer.due_ns <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        if self._lanes is not None:
            self._lanes.lanes.send()
        self._timer = retry = self._loop.call_at(self._loop.clock() + _RETRY_NS, self._tick)
        with self._turn() as now:
            self._emit(self.tunnel.tick(now))
            self._has_outdated_lanes = True
            self._carry_out_all(now)
            retry.cancel()
            self._timer = None

    # Packets leave

    def _write(self, peer: str, frame: bytes | bytearray, gso: GsoHeader | None) -> Drop | None:
        """The walk sends a packet to a peer: it leaves with the burst."""
        if self._lanes is not None and peer not in self._queues:  # it may not overtake packets that wait there
            number = self._lanes.open.get(peer)
            if number is not None and self._lanes.lanes.write(number, frame, gso, self._loop.clock()):
                return None
        queue = self._queues.setdefault(peer, [])
        if gso is None:
            queue.append(bytes(frame))
            self._queued += 1
        else:
            packets = [bytes(packet) for packet in gso_headers.segment(bytearray(frame), gso)]
            queue += packets
            self._queued += len(packets)
        if self._queued >= QUEUED_PACKETS:
            self._send_queued()
        return None

    def flush(self) -> None:
        """A burst is walked: seal and send its packets, and call the peers that the walk wanted and could not reach."""
        if self._lanes is not None:
            self._send_lanes(self._lanes)
        if self._queues:
            self._send_queued()
        wanted = self._gateway.wanted_nodes
        if wanted:
            with self._turn() as now:
                while wanted:
                    peer = wanted.pop()
                    if peer in self._ports:
                        self._emit(self.tunnel.call(peer, now))

    def _send_lanes(self, lanes: PeerLanes) -> None:
        """Send the packets in the lanes, and tell the tunnel of all that left by them since it heard last."""
        sent = lanes.send()
        if not sent:
            return
        with self._turn() as now:
            unsent = lanes.take_unsent()
            if unsent:
                self._send(unsent)
                self._has_outdated_lanes = self._has_doubtful_paths = True
            for peer, size_bytes in sent:
                self._emit(self.tunnel.lane_sealed(peer, size_bytes, now))

    def _send_queued(self) -> None:
        if self._lanes is not None:
            self._lanes.lanes.send()  # before the tunnel seals anything
        queues, self._queues, self._queued = self._queues, {}, 0
        with self._turn() as now:
            for peer, packets in queues.items():
                self._emit(self.tunnel.send(peer, packets, now))

    def _fit(self, peer: str, port: str, packet: bytes, now: int) -> None:
        """A packet became too long for its path while it waited: cut it, or answer it, as the walk would by now."""
        parsed, mtu_bytes = ipv4.parse(packet, 0, None), self.tunnel.mtu_towards(peer)
        if isinstance(parsed, Drop):
            return
        if parsed.dont_fragment:
            self._loop.carry_out(self._gateway.undelivered(port, packet, now, mtu_bytes=mtu_bytes))
            return
        fragments = [bytes(fragment.data) for fragment in ipv4.fragments_of(parsed, mtu_bytes)]
        self._emit(self.tunnel.send(peer, fragments, now))

    def _count(self, reason: Drop, count: int) -> None:
        self._gateway.counters.lost(_PORT, reason, count)

    # Datagrams come

    def _receive(self, _events: int) -> None:
        with self._turn() as now:
            if self._lanes is None or self._loop.watching:
                self._open(self._datagrams.read_burst(BURST_DATAGRAMS), now)
            else:
                self._receive_lanes(self._lanes, now)
            signals = self._datagrams.read_signals()
            if signals:
                self._emit(self.tunnel.path_signals(signals, now))
                self._has_outdated_lanes = True
            self._carry_out_all(now)
            self.flush()

    def _open(self, burst: Sequence[Received], now: int) -> None:
        if self._lanes is not None:
            self._lanes.lanes.send()
        self._emit(self.tunnel.receive(burst, now))
        self._has_outdated_lanes = True

    def _receive_lanes(self, lanes: PeerLanes, now: int) -> None:
        """Read a burst by the lanes. The rest comes here in the order of each peer: packets that the lanes opened, then
        datagrams that they do not know."""
        burst = lanes.receive(self._most_datagrams, now)
        is_strange = len(burst.strange) > STRANGE_DATAGRAMS // 2
        self._most_datagrams = STRANGE_DATAGRAMS if is_strange else BURST_DATAGRAMS
        for number, frame, gso in burst.queued:
            self._loop.put(number, frame, gso)
        for reason, count in zip(_LANE_DROPS, burst.drops, strict=True):
            if count:
                self._count(reason, count)
        if burst.received or burst.opened:
            effects, frames = self.tunnel.lane_opened(burst.received, burst.opened, now)
            self._emit(effects)
            if effects.events or any(session.moved_to for session in burst.received):
                self._has_outdated_lanes = True
            self._carry_out_all(now)
            for peer, run in groupby(frames, key=itemgetter(0)):
                self._loop.walk(self._ports[peer], [(packet, gso) for _, packet, gso in run])
        if burst.strange:
            self._open(burst.strange, now)
        elif lanes.is_stale:
            self._has_outdated_lanes = True

    # Events of peers

    def _peers_changed(self, effects: Effects) -> None:
        for what, peer in effects.events:
            if what is Happening.GAVE_UP:
                log.warning("%s does not answer; packets for it are answered with ICMP 3/1 and call it again", peer)
            if what in _SILENCE:
                self._names.look_up(peer)
            elif what is Happening.SESSION and peer in self._gateway.unreachable_nodes:
                log.info("%s is there", peer)
            elif what is Happening.MTU and peer not in self._mtu_untold:
                self._mtu_untold.add(peer)
                self._loop.call_later(TELL_MTU_AFTER_S, partial(self._log_mtu, peer))

    def _tell_walk(self, now: int) -> None:
        """Tell the walk which peers it may send to, and the longest packets that it may send."""
        statuses = self.tunnel.status(now)
        silent = {peer.name for peer in statuses if peer.endpoint is None or peer.has_given_up}
        silent |= {peer.name for peer in statuses if peer.endpoint is not None and peer.endpoint.via in silent}
        self._gateway.unreachable_nodes = self._unserved | silent
        mtus, configured = self._gateway.mtus, self._gateway.interfaces["vpn"].mtu_bytes
        mtus.known = {self._ports[peer.name]: peer.mtu_bytes for peer in statuses}
        mtus.segments = {
            port: mtu_bytes // _PADDED_BYTES * _PADDED_BYTES
            for port, mtu_bytes in mtus.known.items()
            if mtu_bytes < configured
        }

        endpoints = {peer.endpoint.address for peer in statuses if peer.endpoint is not None and not peer.endpoint.via}
        addresses = frozenset(address for address in endpoints if len(address) == 4)
        if addresses != self._told_endpoints:
            self._told_endpoints = addresses
            self._on_endpoints(addresses)

    def tell_endpoints(self, told: Callable[[frozenset[bytes]], None]) -> None:
        """Call `told` with the IPv4 addresses of all endpoints, 4 bytes each: now, and whenever they change."""
        self._on_endpoints = told
        told(self._told_endpoints)

    def _log_mtu(self, peer: str) -> None:
        """Once for a whole search, however many steps it takes."""
        self._mtu_untold.discard(peer)
        if peer in self._ports:
            log.info("packets for %s have %d bytes at most", peer, self.tunnel.mtu_towards(peer))

    def _log_announcements(self, effects: Effects, now: int) -> None:
        by_name = {status.name: status for status in self.tunnel.status(now)}
        for what, peer in effects.events:
            if what is Happening.ANSWERED and peer in by_name:
                _log_prefixes(f"{peer} answers to our announcement:", by_name[peer].told)
            elif what is Happening.ANNOUNCED and peer in by_name:
                _log_prefixes(f"{peer} announces", by_name[peer].announced)

    def _announced(self) -> Announced:
        return {
            peer: [prefix_of(network) for network in networks] for peer, networks in self.tunnel.announced().items()
        }

    def announced_under(self, peers: Peers) -> Announced:
        """The announced prefixes that peers would own under another configuration. It changes the tunnel: call it only
        in a child process. Raises `ValueError` as `reconfigure`."""
        now = self._loop.clock()
        self.tunnel.set_peers(peers.configs, now, peers.role)
        self.tunnel.set_networks(peers.networks, now)
        return self._announced()

    # Names of endpoints

    def _endpoint_of(self, peer: str) -> Endpoint | None:
        statuses = self.tunnel.status(self._loop.clock())
        return next((status.endpoint for status in statuses if status.name == peer), None)

    def _resolved(self, peer: str, endpoint: Endpoint, *, must_call: bool) -> None:
        """A name was found: the peer is at this endpoint."""
        with self._turn() as now:
            self._emit(self.tunnel.set_endpoint(peer, endpoint, now))
            if must_call:
                self._emit(self.tunnel.call(peer, now))
            self._has_outdated_lanes = True
            self._carry_out_all(now)
            self._tell_walk(now)

    # The operator

    def reconfigure(self, peers: Peers, unserved: set[str]) -> None:
        """Take over peers, after the gateway took over its part. Sessions of unchanged peers live on.

        Raises `ValueError` where the tunnel refuses the peers; then nothing has changed.
        """
        self.flush()  # these packets are accounted to the present owners of the ports
        self._configure(peers, unserved)

    def _configure(self, peers: Peers, unserved: set[str]) -> None:
        with self._turn() as now:
            effects = self.tunnel.set_peers(peers.configs, now, peers.role)
            peers.wipe()
            effects.extend(self.tunnel.set_networks(peers.networks, now))
            self._emit(effects)
            self._attach(peers)
            self._unserved = unserved
            self._names.configure(peers.names)
            self._tell_walk(now)
            self._has_new_announcements = self._has_outdated_lanes = True  # peers may be gone, or have other names

    def _attach(self, peers: Peers) -> None:
        """Give the packets for each peer's port to `_write`."""
        for port in self._ports.values():
            self._loop.detach_writer(port)
        self._ports = {peer.name: self._gateway.port_of(vpn_target(peer.name)) for peer in peers.configs}
        for peer, port in self._ports.items():
            self._loop.attach_writer(port, partial(self._write, peer))

    def refusal_of(self, peers: Peers) -> str | None:
        """The tunnel's refusal of peers, for those that reading the configuration does not find; nothing changes."""
        if any(peer.public_key == self.tunnel.public_key for peer in peers.configs):
            return "a peer has our own public key"
        weak = next((peer.name for peer in peers.configs if is_low_order(peer.public_key)), None)
        return None if weak is None else f"the public key of {weak} is a point of low order, nobody has it"

    @property
    def ports(self) -> list[str]:
        """The walk's ports that lead here."""
        return list(self._ports.values())

    @property
    def lanes(self) -> int:
        """The number of peers that have a lane at present."""
        return len(self._lanes.open) if self._lanes is not None else 0

    def status(self) -> list[Status]:
        """All peers, for people."""
        return self.tunnel.status(self._loop.clock())

    def close(self) -> None:
        """Wipe every key, and take the sockets and the timer from the loop."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove(self._datagrams.fileno())
        if self._lanes is not None:
            self._lanes.close()
        self.tunnel.close()


def _log_prefixes(sentence: str, prefixes: Sequence[tuple[Network, Verdict | None]]) -> None:
    """Log a line about an announcement, its refused prefixes first."""
    known = sorted(
        (verdict.is_refusal is False, verdict, prefix) for prefix, verdict in prefixes if verdict is not None
    )
    words = [f"{prefix_of(prefix)} ({verdict.says})" for _, verdict, prefix in known]
    more = [f"{len(words) - _TOLD_PREFIXES} more"] if len(words) > _TOLD_PREFIXES else []
    level = logging.WARNING if known and not known[0][0] else logging.INFO
    log.log(level, "%s %s", sentence, ", ".join(words[:_TOLD_PREFIXES] + more) or "nothing any more")
