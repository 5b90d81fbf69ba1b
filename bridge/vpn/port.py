"""The uplink: the ports `vpn` and `vpn:NODE` of the walk, joined to the encrypted tunnel and its UDP socket.

What the walk sends to a node waits until the burst that it came with is walked, and is sealed and sent with the rest of
it; a super-frame is cut into packets first. What comes is opened in bursts, merged into super-frames where it can be,
and walked as frames of the node's port. The tunnel's timers are timers of the loop.

A node is unreachable for the walk, which answers with ICMP 3/1, while nobody knows where it is or its last handshake
was in vain. A packet for it then asks for another handshake. Its name is looked up again while its calls stay without
an answer.

Reads no clock of its own and opens nothing: the loop's clock, a socket and a resolver are handed in.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Protocol

from bridge.config.into_routes import Announced
from bridge.config.into_tunnel import NamedEndpoint, Peers, prefix_of
from bridge.loop.loop import Loop, Timer
from bridge.vpn.lanes import PeerLanes
from bridge.vpn.resolver import Answer
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
"""As many in a turn behind one that brought more than half of it to Python: handshakes of a flood cost what walks cost,
and the other ports wait meanwhile."""
QUEUED_PACKETS = 256
"""A burst of super-frames is many packets: that many are sealed at once."""
RESOLVE_AGAIN_S = 30.0
TELL_MTU_AFTER_S = 30.0
_PAUSE_NS = SECOND_NS  # after a fault of ours on a timer
_PADDED_BYTES = 16
"""The far end pads what it sends to a multiple, up to its own MTU, and knows nothing of a path that is narrower."""
_PORT = "vpn"  # where the tunnel's drops are counted
_OWED = frozenset({Drop.TUNNEL_NO_PEER, Drop.TUNNEL_NO_ENDPOINT, Drop.TUNNEL_GAVE_UP})
"""Reasons that a sender is told (ICMP 3/1); a queue that is full is congestion, and silent."""
_SILENCE = frozenset({Happening.UNANSWERED, Happening.GAVE_UP})
_CHANGES = frozenset({Happening.SESSION, Happening.MOVED, Happening.MTU}) | _SILENCE
_TALK = frozenset({Happening.ANNOUNCED, Happening.ANSWERED})
_LANE_DROPS = (Drop.TUNNEL_AUTHENTICATION, Drop.TUNNEL_REPLAY, Drop.PORT_MALFORMED, Drop.PORT_FULL)
_TOLD_PREFIXES = 8
"""Of an announcement in one line of the log."""


class Datagrams(Protocol):
    """What the uplink needs of `bridge.ports.udp.datagrams.DatagramSocket`."""

    def fileno(self) -> int:
        """Readable while datagrams or signals wait."""

    def read_burst(self, limit: int) -> list[Received]:
        """What waits, about `limit` datagrams at most."""

    def read_signals(self) -> list[TooBig]:
        """What came about datagrams that did not fit, up to the last `read_burst`."""

    def send_burst(self, datagrams: Sequence[Datagram]) -> Counter[Drop]:
        """Send in order; what was refused."""


Resolve = Callable[[str, Answer], None]


class Uplink:
    """`keep`: writes the tunnel's stamps down; `resolve`: looks a host name up, and answers later, in the loop;
    `lanes`: the compiled way of packets, None where all of them are sealed and opened from here."""

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
        self._resolve = resolve
        self._names: dict[str, NamedEndpoint] = {}
        self._looking: set[str] = set()
        self._sought: set[str] = set()  # of these, those to call once they are found
        self._telling: set[str] = set()
        self._ports: dict[str, str] = {}  # by peer
        self._most_datagrams = BURST_DATAGRAMS
        self._queues: dict[str, list[bytes]] = {}  # by peer
        self._queued = 0
        self._unserved = unserved
        self._timer: Timer | None = None
        loop.add(datagrams.fileno(), self._receive)
        loop.after_bursts(self.flush)
        self._take_over(peers, unserved)
        self._arm()

    def begin(self) -> None:
        """Forwarding begins: peers of an earlier run are called, now or once their names are found. They may still seal
        for that one, and would notice only after 15 s of silence that nobody opens it."""
        now = self._loop.clock()
        known = self.tunnel.known()
        for peer in known:
            self._settle(self.tunnel.call(peer, now), now)
        self._sought = self._looking.intersection(known)
        self._arm()

    # Packets leave

    def _write(self, peer: str, frame: bytes | bytearray, gso: GsoHeader | None) -> Drop | None:
        """The walk sends a packet to a node: it leaves with the burst."""
        if self._lanes is not None and peer not in self._queues:  # nothing may overtake what waits there
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
        """A burst is walked: seal and send what it left here, and call nodes that it wanted in vain."""
        if self._lanes is not None:
            self._send_lanes(self._lanes)
        if self._queues:
            self._send_queued()
        wanted = self._gateway.wanted_nodes
        while wanted:
            peer = wanted.pop()
            if peer in self._ports:
                now = self._loop.clock()
                self._settle(self.tunnel.call(peer, now), now)
                self._arm()

    def _send_lanes(self, lanes: PeerLanes) -> None:
        """What is in the lanes leaves; the tunnel hears of it, and of what left since it heard last."""
        sent = lanes.send()
        if not sent:
            return
        now = self._loop.clock()
        unsent = lanes.take_unsent()
        if unsent:
            for reason, count in self._datagrams.send_burst(unsent).items():
                self._count(reason, count)
            self._renew(is_sure=False)
        for peer, size_bytes in sent:
            self._settle(self.tunnel.emitted(peer, size_bytes, now), now)
        self._arm()

    def _send_queued(self) -> None:
        if self._lanes is not None:
            self._lanes.lanes.send()  # before anything that the tunnel does
        queues, self._queues, self._queued = self._queues, {}, 0
        now = self._loop.clock()
        for peer, packets in queues.items():
            self._settle(self.tunnel.send(peer, packets, now), now)
        self._arm()

    # Datagrams come

    def _receive(self, _events: int) -> None:
        now = self._loop.clock()
        if self._lanes is None or self._loop.watching:
            self._take(self._datagrams.read_burst(BURST_DATAGRAMS), now)
        else:
            self._receive_lanes(self._lanes, now)
        signals = self._datagrams.read_signals()
        if signals:
            self._settle(self.tunnel.path_signals(signals, now), now)
            self._renew()
        self.flush()
        self._arm()

    def _take(self, burst: Sequence[Received], now: int) -> None:
        if self._lanes is not None:
            self._lanes.lanes.send()
        self._settle(self.tunnel.receive(burst, now), now)
        self._renew()

    def _receive_lanes(self, lanes: PeerLanes, now: int) -> None:
        """What lanes do not know comes here, in the order of each peer: packets that they opened, then datagrams."""
        taken = lanes.receive(self._most_datagrams, now)
        is_strange = len(taken.strange) > STRANGE_DATAGRAMS // 2
        self._most_datagrams = STRANGE_DATAGRAMS if is_strange else BURST_DATAGRAMS
        for number, frame, gso in taken.queued:
            self._loop.put(number, frame, gso)
        for reason, count in zip(_LANE_DROPS, taken.drops, strict=True):
            if count:
                self._count(reason, count)
        if taken.heard or taken.opened:
            effects, frames = self.tunnel.taken(taken.heard, taken.opened, now)
            self._settle(effects, now)
            if effects.events or any(source for _, _, _, source in taken.heard):
                self._renew()
            for peer, run in groupby(frames, key=itemgetter(0)):
                self._loop.walk(self._ports[peer], [(packet, gso) for _, packet, gso in run])
        if taken.strange:
            self._take(taken.strange, now)
        elif lanes.is_stale:
            self._renew()

    def _renew(self, *, is_sure: bool = True) -> None:
        """The tunnel may have changed what lanes rest on."""
        if self._lanes is not None:
            self._lanes.renew(self.tunnel, self._ports, is_sure=is_sure)

    # Time

    def _tick(self) -> None:
        if self._lanes is not None:
            self._lanes.lanes.send()
        now = self._loop.clock()
        self._timer = self._loop.call_at(now + _PAUSE_NS, self._tick)  # should the tick fail
        self._settle(self.tunnel.tick(now), now)
        self._renew()
        self._timer.cancel()
        self._timer = None
        self._arm()

    def _arm(self) -> None:
        """See to it that the tunnel's next deadline is met; a timer that is early does no harm."""
        due = self.tunnel.next_deadline()
        if due is None or (self._timer is not None and self._timer.due_ns <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._tick)

    # What the tunnel wants

    def _settle(self, effects: Effects, now: int) -> None:
        happened = {event.what for event in effects.events}
        if Happening.STAMPED in happened:
            self._keep(self.tunnel.stamps())  # before a datagram with the stamp leaves
        if effects.datagrams:
            for reason, count in self._datagrams.send_burst(effects.datagrams).items():
                self._count(reason, count)
        for reason, count in effects.drops.items():
            self._count(reason, count)
        if not happened.isdisjoint(_CHANGES):
            self._changed(effects, now)
            self._renew()
        if not happened.isdisjoint(_TALK):
            self._announcements(effects, now)
        for peer, packet, reason in effects.unsent:
            port = self._ports.get(peer)
            if port is None:
                continue
            if reason is Drop.TUNNEL_TOO_BIG:
                self._fit(peer, port, packet, now)
            elif reason in _OWED:
                self._loop.carry_out(self._gateway.undelivered(port, packet, now))
        for peer, run in groupby(effects.packets, key=itemgetter(0)):
            self._loop.walk(self._ports[peer], coalesce([packet for _, packet in run]))

    def _fit(self, peer: str, port: str, packet: bytes, now: int) -> None:
        """A packet became too long for its path while it waited: what the walk would do with it by now."""
        parsed, mtu_bytes = ipv4.parse(packet, 0, None), self.tunnel.mtu_towards(peer)
        if isinstance(parsed, Drop):
            return
        if parsed.dont_fragment:
            self._loop.carry_out(self._gateway.undelivered(port, packet, now, mtu_bytes=mtu_bytes))
            return
        fragments = [bytes(fragment.data) for fragment in ipv4.fragments_of(parsed, mtu_bytes)]
        self._settle(self.tunnel.send(peer, fragments, now), now)

    def _count(self, reason: Drop, count: int) -> None:
        self._gateway.counters.lost(_PORT, reason, count)

    def _changed(self, effects: Effects, now: int) -> None:
        for what, peer in effects.events:
            if what is Happening.GAVE_UP:
                log.warning("%s does not answer; packets for it are answered with ICMP 3/1 and call it again", peer)
            if what in _SILENCE:
                self._look_up(peer)
            elif what is Happening.SESSION and peer in self._gateway.unreachable_nodes:
                log.info("%s is there", peer)
            elif what is Happening.MTU and peer not in self._telling:
                self._telling.add(peer)
                self._loop.call_later(TELL_MTU_AFTER_S, partial(self._tell_mtu, peer))
        self._judge(now)

    def _judge(self, now: int) -> None:
        """Which nodes the walk may send to, and how much at once."""
        statuses = self.tunnel.status(now)
        silent = {peer.name for peer in statuses if peer.endpoint is None or peer.has_given_up}
        silent |= {peer.name for peer in statuses if peer.endpoint is not None and peer.endpoint.via in silent}
        self._gateway.unreachable_nodes = self._unserved | silent
        # Between a change of the configuration and `_take_over`, a peer may have no port yet.
        known = ((self._ports.get(peer.name), peer.mtu_bytes) for peer in statuses)
        out, configured = self._gateway.out, self._gateway.interfaces["vpn"].mtu_bytes
        out.path_mtus = {port: mtu_bytes for port, mtu_bytes in known if port is not None}
        out.segments = {
            port: mtu_bytes // _PADDED_BYTES * _PADDED_BYTES
            for port, mtu_bytes in out.path_mtus.items()
            if mtu_bytes < configured
        }

    def _tell_mtu(self, peer: str) -> None:
        """Once for a whole search, however many steps it takes."""
        self._telling.discard(peer)
        if peer in self._ports:
            log.info("packets for %s have %d bytes at most", peer, self.tunnel.mtu_towards(peer))

    def _announcements(self, effects: Effects, now: int) -> None:
        """What peers take of ours is told; what is taken of theirs takes part in the walk from now on."""
        by_name = {status.name: status for status in self.tunnel.status(now)}
        for what, peer in effects.events:
            if what is Happening.ANSWERED and peer in by_name:
                _tell(f"{peer} answers to what we announce:", by_name[peer].told)
            elif what is Happening.ANNOUNCED and peer in by_name:
                _tell(f"{peer} announces", by_name[peer].announced)
        self._gateway.announce(self._announced())

    def _announced(self) -> Announced:
        return {
            peer: [prefix_of(network) for network in networks] for peer, networks in self.tunnel.announced().items()
        }

    def announced_under(self, peers: Peers) -> Announced:
        """What would be taken of the peers' announcements under another configuration. It changes the tunnel: this is
        for a fork."""
        now = self._loop.clock()
        self.tunnel.set_peers(peers.configs, now, peers.role)
        self.tunnel.set_networks(peers.networks, now)
        return self._announced()

    # Names

    def _look_up(self, peer: str) -> None:
        named = self._names.get(peer)
        if named is not None and peer not in self._looking:
            self._looking.add(peer)
            self._resolve(named[0], partial(self._found, peer, named))

    def _found(self, peer: str, named: NamedEndpoint, addresses: Sequence[bytes]) -> None:
        """The first address, in the order of the resolver; after a handshake in vain the one behind that in use."""
        self._looking.discard(peer)
        if self._names.get(peer) != named:  # a reload came in between
            self._look_up(peer)
            return
        now = self._loop.clock()
        known = next((status.endpoint for status in self.tunnel.status(now) if status.name == peer), None)
        if not addresses:
            log.warning("the name %s of %s has no address at present", named[0], peer)
            if known is None:
                self._loop.call_later(RESOLVE_AGAIN_S, partial(self._look_up, peer))
            return
        in_use = addresses.index(known.address) if known is not None and known.address in addresses else -1
        found = Endpoint(addresses[(in_use + 1) % len(addresses)], named[1])
        self._settle(self.tunnel.set_endpoint(peer, found, now), now)
        if peer in self._sought:
            self._sought.discard(peer)
            self._settle(self.tunnel.call(peer, now), now)
        self._renew()
        self._judge(now)
        self._arm()

    # The operator

    def reconfigure(self, peers: Peers, unserved: set[str]) -> None:
        """Take over peers, after the gateway took over its part; sessions of unchanged peers live on.

        `ValueError` where the tunnel refuses them: nothing has changed then.
        """
        now = self._loop.clock()
        self.flush()  # what left counts for whoever has the port until now
        lanes, self._lanes = self._lanes, None  # until the ports of all peers are known again
        try:
            self._settle(self.tunnel.set_peers(peers.configs, now, peers.role), now)
            self._take_over(peers, unserved)
        finally:
            self._lanes = lanes
        self._settle(self.tunnel.set_networks(peers.networks, now), now)
        self._gateway.announce(self._announced())  # peers may be gone, or have other names
        self._renew()
        self._arm()

    def _take_over(self, peers: Peers, unserved: set[str]) -> None:
        peers.wipe()
        for port in self._ports.values():
            self._loop.detach_writer(port)
        self._ports = {peer.name: self._gateway.port_of(vpn_target(peer.name)) for peer in peers.configs}
        for peer, port in self._ports.items():
            self._loop.attach_writer(port, partial(self._write, peer))
        before, self._names = self._names, dict(peers.names)
        for peer, named in self._names.items():
            if before.get(peer) != named:
                self._look_up(peer)
        self._unserved = unserved
        self._judge(self._loop.clock())

    def fault_of(self, peers: Peers) -> str | None:
        """What the tunnel would refuse of peers, beyond what reading the configuration finds; nothing changes."""
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
        """Peers whose packets may pass without the interpreter at present."""
        return len(self._lanes.open) if self._lanes is not None else 0

    def status(self) -> list[Status]:
        """All peers, for people."""
        return self.tunnel.status(self._loop.clock())

    def close(self) -> None:
        """Wipe every key and let the loop forget us."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove(self._datagrams.fileno())
        if self._lanes is not None:
            self._lanes.close()
        self.tunnel.close()


def _tell(who: str, prefixes: Sequence[tuple[Network, Verdict | None]]) -> None:
    """A line of the log about an announcement, the refused prefixes first."""
    known = sorted(
        (verdict.is_refusal is False, verdict, prefix) for prefix, verdict in prefixes if verdict is not None
    )
    words = [f"{prefix_of(prefix)} ({verdict.says})" for _, verdict, prefix in known]
    more = [f"{len(words) - _TOLD_PREFIXES} more"] if len(words) > _TOLD_PREFIXES else []
    level = logging.WARNING if known and not known[0][0] else logging.INFO
    log.log(level, "%s %s", who, ", ".join(words[:_TOLD_PREFIXES] + more) or "nothing any more")
