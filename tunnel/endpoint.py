"""`Tunnel`: the interface of this room. Bytes and `now` come in, `Effects` go out.

`receive` takes a burst of datagrams, `send` a burst of inner packets for one peer; `tick` and `next_deadline` are all
timers. Nothing here sends, sleeps or asks for the time. `now` (ns, monotonic) never runs backwards. A datagram that
does not authenticate is dropped in silence and counted.

A burst of data is opened in three steps, so that the middle one may run on several cores. First the sessions are looked
up and old counters refused; then the `BurstCipher` opens the whole burst; then windows, timers and inner sources follow
in order.

A peer behind a relay has an endpoint that names the relay. Its messages are taken out of envelopes and handled like all
others; messages for it are put into envelopes at the end of each call (`tunnel.relay`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from tunnel import tai64n
from tunnel.allowed import AllowedIps
from tunnel.announce import MOST_PREFIXES, RUN_BYTES, Claimant, Offer, objection_to, shared_out
from tunnel.common import Common
from tunnel.constants import OFF
from tunnel.control import is_control
from tunnel.cookies import CookieDesk, LoadGauge, SourceLimits
from tunnel.ecn import HANDSHAKE_TOS, marked
from tunnel.effects import (
    NO_ROLE,
    Datagram,
    Effects,
    Endpoint,
    Happening,
    Network,
    Networks,
    PeerConfig,
    PeerEvent,
    Received,
    Role,
    Stamps,
    Status,
    TooBig,
)
from tunnel.indices import IndexEntry, IndexTable
from tunnel.messages import DATA_HEADER, DEFAULT_MTU_BYTES, MessageKind, index_at, kind_of
from tunnel.noise import LocalKeys, RemoteKeys, read_static
from tunnel.pathmtu import PathLimits, direct_limits
from tunnel.peers.peer import Peer
from tunnel.primitives import BurstCipher, Cipher
from tunnel.relay import Relaying, with_next_hops
from tunnel.session import Lane
from wire.drop import Drop
from wire.gso import GsoHeader

_NO_STAMPS = Stamps(tai64n.NEVER, tai64n.NEVER)
_NO_NETWORKS = Networks()
_KEEPALIVE_LIMIT_S = 65_535
_OTHER_PATH = frozenset({Happening.MTU, Happening.MOVED})
"""After these events of a relay the path to each peer behind it is another one."""

_Job = tuple[IndexEntry[Peer], int, Received]


class SessionRx(NamedTuple):
    """Authentic datagrams that a lane opened under one session. `local`: our index of the session; `size_bytes`: of the
    datagrams; `has_data`: an inner packet was among them; `moved_to`: the source of the last one, None where all came
    from the peer's endpoint."""

    local: int
    size_bytes: int
    has_data: bool
    moved_to: Endpoint | None


Opened = tuple[int, bytes, GsoHeader | None, int]
"""A lane's result: our index of a session, a plaintext or a super-frame made of several, the ECN field of its
datagram."""


class Tunnel:
    """Our end of the tunnel and all its peers.

    `private_key`: 32 bytes; `wall_ns`: the wall clock, for the stamps of initiations alone; `random_bytes(n)`: n
    unpredictable bytes; `mtu_bytes`: the longest inner packet; `cipher`: seals and opens data; `stamps`: the result of
    `stamps()` in an earlier run; `networks`: the prefixes that we announce, and those that no peer may announce;
    `role`: our name, and whether we relay.

    Raises `ValueError` where a key, a prefix, a keepalive or a `via` is impossible, two peers are one, or more than
    `MOST_PREFIXES` are announced.
    """

    __slots__ = (
        "_allowed",
        "_announced",
        "_by_name",
        "_common",
        "_desk",
        "_gauge",
        "_indices",
        "_limits",
        "_mtu_bytes",
        "_networks",
        "_peers",
        "_relaying",
        "_remembered",
    )

    def __init__(
        self,
        private_key: bytes | bytearray,
        peers: Iterable[PeerConfig],
        now: int,
        *,
        wall_ns: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        mtu_bytes: int = DEFAULT_MTU_BYTES,
        cipher: BurstCipher | None = None,
        stamps: Mapping[bytes, Stamps] | None = None,
        networks: Networks = _NO_NETWORKS,
        role: Role = NO_ROLE,
    ) -> None:
        local = LocalKeys(private_key)
        self._mtu_bytes = mtu_bytes
        self._common = Common(local, cipher or Cipher(), random_bytes, wall_ns, self._limits_of)
        self._indices: IndexTable[Peer] = IndexTable(random_bytes)
        self._desk = CookieDesk(local.public, random_bytes)
        self._gauge = LoadGauge()
        self._limits = SourceLimits()
        self._peers: dict[bytes, Peer] = {}  # by public key
        self._by_name: dict[str, Peer] = {}
        self._allowed = AllowedIps(())
        self._relaying = Relaying(role, self._indices)
        self._remembered: dict[bytes, Stamps] = {}
        for public, known in (stamps or {}).items():
            if len(known.received) != tai64n.STAMP_BYTES or len(known.sent) != tai64n.STAMP_BYTES:
                raise ValueError("a TAI64N stamp has 12 bytes")
            self._remembered[public] = known
        self._networks = _NO_NETWORKS
        self._announced: dict[Network, bytes] = {}  # the owner of each prefix, by public key
        self.set_networks(networks, now)
        self.set_peers(peers, now)

    # Inner packets leave

    def peer_for(self, destination: int, version: int = 4) -> str | None:
        """The peer whose prefix, configured or announced, is the longest around an inner destination; None without
        one."""
        owners = self._allowed.owners(destination, version)
        return owners[0] if owners else None

    def send(self, peer: str, burst: Sequence[bytes], now: int) -> Effects:
        """Seal inner packets for a peer, or keep them until it has a session. Packets that cannot leave come back
        `unsent`.

        A packet that is too long for the path to the peer comes back with `TUNNEL_TOO_BIG`. The walk answers such
        packets with ICMP 3/4, or cuts them, before they come here, unless the path has become narrower since.
        """
        out = Effects()
        found = self._by_name.get(peer)
        if found is None:
            for packet in burst:
                out.refuse(peer, packet, Drop.TUNNEL_NO_PEER)
        elif burst:
            found.send(burst, now, out)
        return self._wrapped(out, now)

    def call(self, peer: str, now: int) -> Effects:
        """Ask for a session without a packet. Nothing happens while a handshake is under way. Raises `KeyError` for a
        peer that is not configured."""
        out = Effects()
        self._by_name[peer].initiate(now, out)
        return self._wrapped(out, now)

    def known(self) -> list[str]:
        """The peers with which this run or an earlier one had a handshake (`stamps`)."""
        return [name for name, peer in self._by_name.items() if peer.handshake.stamps != _NO_STAMPS]

    def _wrapped(self, out: Effects, now: int) -> Effects:
        """Put datagrams for peers behind a relay into envelopes. It is the last step of every call."""
        if self._relaying.is_used:
            self._relaying.wrap(now, out)
        return out

    # Datagrams come

    def receive(self, burst: Iterable[Received], now: int) -> Effects:
        """Take in datagrams. Hostile ones give a drop reason, never an error."""
        out = Effects()
        unwrapped = self._take_in(burst, now, out)
        if unwrapped:  # none of these is an envelope
            self._take_in(unwrapped, now, out)
        if out.events:
            self._follow_relays(now, out)
        self._judge(now, out)
        return self._wrapped(out, now)

    def _take_in(self, burst: Iterable[Received], now: int, out: Effects) -> list[Received]:
        """Take in datagrams, and return the messages that came in envelopes for us. Handshakes follow the data of a
        burst: no peer sends data under keys that we have not answered yet."""
        unwrapped: list[Received] = []
        find = self._indices.find
        jobs: list[_Job] = []
        handshakes: list[tuple[MessageKind, Received]] = []  # taken after the data
        for received in burst:
            datagram = received.data
            kind = kind_of(datagram)
            if kind is MessageKind.DATA:
                _, receiver, counter = DATA_HEADER.unpack_from(datagram)
                entry = find(receiver, counter, now)
                if isinstance(entry, Drop):
                    out.drop(entry)
                else:
                    jobs.append((entry, counter, received))
            elif kind is None:
                out.drop(Drop.TUNNEL_MALFORMED)
            elif kind is MessageKind.RELAYED:
                message = self._relaying.open(received, now, out)
                if message is not None:
                    unwrapped.append(message)
            else:
                handshakes.append((kind, received))
        if jobs:
            self._open(jobs, now, out)
        for kind, received in handshakes:
            self._handshake(kind, received.data, received.source, now, out)
        self._relaying.account(now, out)
        return unwrapped

    def _open(self, jobs: list[_Job], now: int, out: Effects) -> None:
        """Open data messages, and account each run of one session at once. A control message ends a run, because it may
        announce the sources of the packets behind it."""
        opened = self._common.cipher.open_burst([(job[0].session.keys.receive, job[2].data) for job in jobs])
        packets = out.packets
        at, end = 0, len(jobs)
        while at < end:
            admit = self._allowed.admit
            entry = jobs[at][0]
            source = jobs[at][2].source
            session, peer = entry.session, entry.owner
            name = peer.config.name
            accept = session.window.accept
            control: bytes | None = None
            size = 0
            has_data = False
            while at < end and jobs[at][0] is entry and control is None:
                _, counter, (datagram, came_from, ecn) = jobs[at]
                plain = opened[at]
                at += 1
                if plain is None:
                    out.drop(Drop.TUNNEL_AUTHENTICATION)
                    continue
                if not accept(counter):
                    out.drop(Drop.TUNNEL_REPLAY)
                    continue
                source = came_from
                size += len(datagram)
                if not plain:
                    continue
                if is_control(plain):
                    control = plain
                    continue
                has_data = True
                packet = admit(plain, name)
                if ecn and not isinstance(packet, Drop):
                    packet = marked(packet, ecn)
                if isinstance(packet, Drop):
                    out.drop(packet)
                else:
                    packets.append((name, packet))
            if size:
                peer.received(session, source, size, now, out, has_data=has_data)
            if control is not None:
                peer.consume_control(control, session, now, out)
                self._judge(now, out)

    # Packets that lanes seal and open (`bridge.ports.udp.lanes`)

    def lanes(self) -> list[Lane]:
        """The present lanes. They hold until a call of ours changes a session, an endpoint or a path: ask again after
        each."""
        found = [peer.lane() for peer in self._peers.values()]
        return [lane for lane in found if lane is not None]

    def lane_sealed(self, peer: str, size_bytes: int, now: int) -> Effects:
        """A lane has sealed packets for a peer: so many bytes of datagrams."""
        out = Effects()
        if peer in self._by_name:
            self._by_name[peer].lane_sealed(size_bytes, now, out)
        return self._wrapped(out, now)

    def lane_opened(
        self, received: Iterable[SessionRx], opened: Iterable[Opened], now: int
    ) -> tuple[Effects, list[tuple[str, bytes, GsoHeader | None]]]:
        """Lanes have opened datagrams, and moved the replay windows. `opened`: the results that are yet to be judged,
        in order. Packets that may be walked come back with the name of their peer: (peer, packet, gso)."""
        out = Effects()
        frames: list[tuple[str, bytes, GsoHeader | None]] = []
        entries = self._indices.entries
        for index, size, has_data, moved_to in received:
            peer = entries[index].owner
            source = moved_to or peer.endpoint
            assert source is not None
            peer.received(entries[index].session, source, size, now, out, has_data=has_data)
        for index, plain, claims, ecn in opened:
            peer = entries[index].owner
            if is_control(plain):
                peer.consume_control(plain, entries[index].session, now, out)
                self._judge(now, out)
                continue
            packet = self._allowed.admit(plain, peer.config.name)
            if ecn and not isinstance(packet, Drop):
                packet = marked(packet, ecn)
            if isinstance(packet, Drop):
                pieces = 1 if claims is None else -(-(len(plain) - claims.header_bytes) // claims.gso_bytes)
                out.drops[packet] = out.drops.get(packet, 0) + pieces
            else:
                frames.append((peer.config.name, packet, claims))
        if out.events:
            self._follow_relays(now, out)
        self._judge(now, out)
        return self._wrapped(out, now), frames

    def _handshake(self, kind: MessageKind, message: bytes, source: Endpoint, now: int, out: Effects) -> None:
        """A handshake message: check mac1 first, then the demands under load, then hand it to the peer."""
        if kind is MessageKind.COOKIE_REPLY:
            self._cookie_reply(message, now, out)
            return
        if not self._desk.is_addressed(message):
            out.drop(Drop.TUNNEL_MAC1)
            return
        if self._gauge.is_under_load(now):
            if not self._desk.is_proven(message, source, now):
                out.datagrams.append(Datagram(source, self._desk.reply(message, source, now), HANDSHAKE_TOS))
                out.drop(Drop.TUNNEL_COOKIE_SENT)
                return
            if not self._limits.allows(source, now):
                out.drop(Drop.TUNNEL_SOURCE_LIMIT)
                return
        if kind is MessageKind.RESPONSE:
            peer = self._indices.pending.get(index_at(message, 8))
            if peer is None:
                out.drop(Drop.TUNNEL_UNKNOWN_INDEX)
            elif not peer.may_be_at(source):
                out.drop(Drop.TUNNEL_RELAY_SOURCE)
            else:
                peer.consume_response(message, source, now, out)
            return
        called = read_static(self._common.local, message)
        if called is None:
            out.drop(Drop.TUNNEL_HANDSHAKE)
            return
        peer = self._peers.get(called.static)
        if peer is None:
            called.wipe()
            out.drop(Drop.TUNNEL_UNKNOWN_PEER)
        elif not peer.may_be_at(source):
            called.wipe()
            out.drop(Drop.TUNNEL_RELAY_SOURCE)
        else:
            peer.consume_initiation(called, message, source, now, out)

    def _cookie_reply(self, message: bytes, now: int, out: Effects) -> None:
        peer = self._indices.owner_of(index_at(message, 4))
        if peer is None:
            out.drop(Drop.TUNNEL_UNKNOWN_INDEX)
        else:
            peer.consume_cookie(message, now, out)

    def path_signals(self, signals: Iterable[TooBig], now: int) -> Effects:
        """Datagrams of ours were too big for their path. The lost packet is not repeated, because only its sealed form
        is known; the walk answers the next one of its size."""
        out = Effects()
        there: dict[tuple[bytes, int], list[Peer]] = {}
        for peer in self._peers.values():
            relay = self._relay_of(peer.endpoint)
            where = peer.endpoint if relay is None else relay.endpoint
            if where is not None:
                there.setdefault((where.address, where.port), []).append(peer)
        for signal in signals:
            # A signal of our own kernel is true for every peer at that endpoint: the first must not end the loop.
            believed = [
                peer.too_big(signal, now, out)
                for peer in there.get((signal.endpoint.address, signal.endpoint.port), ())
            ]
            if not any(believed):
                out.drop(Drop.TUNNEL_SIGNAL)
        self._follow_relays(now, out)
        return self._wrapped(out, now)

    def _limits_of(self, endpoint: Endpoint) -> PathLimits:
        """The limits of the path to an endpoint. Behind a relay they follow from the relay's."""
        if not endpoint.via:
            return direct_limits(endpoint, self._mtu_bytes)
        relay = self._relay_of(endpoint)
        if relay is None:  # it is not configured: nothing can be sent
            return PathLimits(self._mtu_bytes).through_relay(self._mtu_bytes)
        return relay.path.limits.through_relay(relay.path.mtu_bytes)

    def _relay_of(self, endpoint: Endpoint | None) -> Peer | None:
        return self._by_name.get(endpoint.via) if endpoint is not None and endpoint.via else None

    def _follow_relays(self, now: int, out: Effects) -> None:
        """If a relay's path changed, recompute the limits of every peer behind it."""
        for what, name in tuple(out.events):
            if what in _OTHER_PATH:
                for peer in self._peers.values():
                    if peer.endpoint is not None and peer.endpoint.via == name:
                        peer.recheck_limits(now, out)

    # Time

    def tick(self, now: int) -> Effects:
        """Fire the timers that are due. Afterwards `next_deadline` is later than `now`."""
        out = Effects()
        while due := [peer for peer in self._peers.values() if peer.timers.earliest() <= now]:
            for peer in due:
                peer.tick(now, out)
            self._follow_relays(now, out)  # it may make timers of other peers due
        self._judge(now, out)
        return self._wrapped(out, now)

    def next_deadline(self) -> int | None:
        """The time of the earliest timer in ns; None where none runs."""
        earliest = min((peer.timers.earliest() for peer in self._peers.values()), default=OFF)
        return None if earliest == OFF else earliest

    # Announced prefixes

    def _judge(self, now: int, out: Effects) -> None:
        """If an announcement, or whether a peer answers, has changed: decide who owns which prefix, and tell the
        peers."""
        if not self._common.is_unjudged:
            return
        self._common.is_unjudged = False
        announcers: list[Peer] = []
        claimants: list[Claimant] = []
        for key, peer in self._peers.items():
            hearing = peer.announcing.hearing
            claim, objections = hearing.claim, hearing.objections
            if claim is None:
                continue
            if objections is None:
                objections = [
                    objection_to(network, peer.config, self._allowed, self._networks) for network in claim.networks
                ]
                hearing.objections = objections
            announcers.append(peer)
            claimants.append(Claimant(key, claim.networks, objections, peer.has_given_up))
        before = self._announced
        self._announced, verdicts = shared_out(claimants, before)
        self._allowed.announce({network: self._peers[key].config.name for network, key in self._announced.items()})
        changed = {key for network, key in before.items() if self._announced.get(network) != key}
        for peer, found in zip(announcers, verdicts, strict=True):
            if peer.announcing.hearing.verdicts == found:
                continue
            peer.announcing.hearing.verdicts = found
            changed.add(peer.config.public_key)
            for verdict in found:
                if verdict.is_refusal:
                    out.drop(Drop.TUNNEL_ANNOUNCE_REFUSED)
            peer.answer_announcement(now, out)
        out.events += [
            PeerEvent(Happening.ANNOUNCED, peer.config.name) for key, peer in self._peers.items() if key in changed
        ]

    def _judge_all(self, now: int, out: Effects) -> None:
        """Judge all announcements anew, after the configuration changed."""
        for peer in self._peers.values():
            peer.announcing.hearing.objections = None
        self._common.is_unjudged = True
        self._judge(now, out)

    def announced(self) -> dict[str, tuple[Network, ...]]:
        """The announced prefixes that each peer owns, by its name. An event `ANNOUNCED` tells of changes."""
        found: dict[str, list[Network]] = {}
        for network, key in self._announced.items():
            found.setdefault(self._peers[key].config.name, []).append(network)
        return {name: tuple(held) for name, held in found.items()}

    # The operator

    def set_networks(self, networks: Networks, now: int) -> Effects:
        """Take over the prefixes that we announce, and those that no peer may announce. Raises `ValueError`, and
        changes nothing, where more than `MOST_PREFIXES` are announced or a prefix has host bits."""
        if len(networks.announce) > MOST_PREFIXES:
            raise ValueError(f"{MOST_PREFIXES} prefixes can be announced at most")
        AllowedIps((PeerConfig("", b"", networks.announce),))
        out = Effects()
        common, before = self._common, self._common.offer
        if networks.announce != before.networks:
            run = before.run if before.number else common.random_bytes(RUN_BYTES)
            common.offer = Offer(run, before.number + 1, networks.announce)
            for peer in self._peers.values():
                peer.offer(now, out)
        self._networks = networks
        self._judge_all(now, out)
        return self._wrapped(out, now)

    def set_peers(self, peers: Iterable[PeerConfig], now: int, role: Role | None = None) -> Effects:
        """Take over a configuration. Raises `ValueError`, and changes nothing, where a value of it is impossible.
        Without a `role` the role stays as it is. No event tells of announcements that went with their peers.

        A peer that keeps its public and pre-shared key keeps its sessions and the packets that wait for one, also under
        another name. A learned endpoint stays unless another one was written.
        """
        role = self._relaying.role if role is None else role
        wanted = with_next_hops(list(peers), role)
        allowed = AllowedIps(wanted)
        made: dict[bytes, Peer] = {}
        fresh: dict[bytes, RemoteKeys] = {}
        keys = {peer.public_key for peer in wanted}
        if len({peer.name for peer in wanted}) < len(wanted) or len(keys) < len(wanted):
            raise ValueError("two peers have the same name or public key")
        for config in wanted:
            if config.public_key == self._common.local.public:
                raise ValueError("a peer has our own public key")
            if not 0 <= config.persistent_keepalive_s <= _KEEPALIVE_LIMIT_S:
                raise ValueError("a persistent keepalive is 0 to 65535 seconds")
            old = self._peers.get(config.public_key)
            if old is None or old.handshake.keys.psk != config.psk:
                fresh[config.public_key] = RemoteKeys(self._common.local, config.public_key, config.psk)
        out = Effects()
        for public, old in self._peers.items():
            self._remembered[public] = old.handshake.stamps
            if public in fresh or public not in keys:
                old.close(out)
        for config in wanted:
            public = config.public_key
            if public in fresh:
                stamps = self._remembered.get(public, _NO_STAMPS)
                made[public] = Peer(config, fresh[public], self._common, self._indices, stamps, now)
            else:
                made[public] = self._peers[public]
                made[public].configure(config, now, out)
        self._peers = made
        self._by_name = {peer.config.name: peer for peer in made.values()}
        self._allowed = allowed
        self._relaying.configure(role, self._by_name, out)
        self._announced = {network: key for network, key in self._announced.items() if key in made}
        self._judge_all(now, out)
        self._recheck_limits(now, out)
        return self._wrapped(out, now)

    def set_endpoint(self, peer: str, endpoint: Endpoint, now: int) -> Effects:
        """The name of a peer's endpoint was resolved: the peer is there until it is heard from elsewhere. No event
        tells that it moved; events `MTU` tell of the path's size, also of peers behind it."""
        out = Effects()
        self._by_name[peer].move(endpoint, now, out)
        self._recheck_limits(now, out)
        return out

    def set_mtu(self, mtu_bytes: int, now: int) -> Effects:
        """Set the longest inner packet for any peer. The path to a peer may carry less."""
        out = Effects()
        self._mtu_bytes = mtu_bytes
        self._recheck_limits(now, out)
        return out

    def _recheck_limits(self, now: int, out: Effects) -> None:
        """Recompute the limits of all paths, those to relays first."""
        for peer in sorted(
            self._peers.values(), key=lambda peer: peer.endpoint is not None and bool(peer.endpoint.via)
        ):
            peer.recheck_limits(now, out)

    def mtu_towards(self, peer: str) -> int:
        """The longest inner packet that `send` takes for a peer, in bytes."""
        return self._by_name[peer].path.mtu_bytes

    def stamps(self) -> dict[bytes, Stamps]:
        """The stamps that must survive a restart, by public key. They are no secret.

        After an event `STAMPED` the caller writes them down before the datagrams of that call leave.
        """
        return self._remembered | {public: peer.handshake.stamps for public, peer in self._peers.items()}

    def status(self, now: int) -> list[Status]:
        """All peers, in the order of the configuration."""
        return [peer.status(now) for peer in self._peers.values()]

    @property
    def public_key(self) -> bytes:
        """Our public key, 32 bytes."""
        return self._common.local.public

    def close(self) -> Effects:
        """Wipe every key. The tunnel cannot be used afterwards."""
        out = Effects()
        for peer in self._peers.values():
            peer.close(out)
        self._peers = {}
        self._by_name = {}
        self._relaying.configure(self._relaying.role, {}, out)
        self._common.local.wipe()
        return out
