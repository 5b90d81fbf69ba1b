"""The tunnel: what the walk sees of this room.

`Tunnel.receive` takes a burst of datagrams, `send` a burst of inner packets for one peer; `tick` and `next_deadline`
are all timers. Every call returns `Effects`. Nothing here sends, sleeps or asks for the time; `now` (ns, monotonic)
never runs backwards. What does not authenticate is dropped in silence and counted.

A burst of data is opened in three steps, so that the middle one may run on several cores: sessions are looked up and
old counters refused; the `BurstCipher` opens all of it; windows, timers and inner sources follow in order.

Peers behind a relay have an endpoint that names it. Their messages are taken out of envelopes and handled as all
others; what is for them is put into envelopes at the end of each call (`tunnel.relay`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from tunnel import tai64n
from tunnel.allowed import AllowedIps
from tunnel.announce import MOST_PREFIXES, RUN_BYTES, Claimant, Offer, fault_of, shared_out
from tunnel.common import Common
from tunnel.control import is_control
from tunnel.cookies import CookieDesk, LoadGauge, SourceLimits
from tunnel.ecn import HANDSHAKE_TOS, marked
from tunnel.effects import (
    NO_ROLE,
    Datagram,
    Effects,
    Endpoint,
    Event,
    Happening,
    Network,
    Networks,
    PeerConfig,
    Received,
    Role,
    Stamps,
    Status,
    TooBig,
)
from tunnel.messages import DATA_HEADER, DEFAULT_MTU_BYTES, Kind, index_at, kind_of
from tunnel.noise import LocalKeys, RemoteKeys, read_static
from tunnel.pathmtu import Way, direct_way
from tunnel.peer import Peer
from tunnel.primitives import BurstCipher, Cipher
from tunnel.relay import Relaying, with_ways
from tunnel.session import Lane, Session
from tunnel.timers import OFF
from wire.drop import Drop
from wire.gso import GsoHeader

_NO_STAMPS = Stamps(tai64n.NEVER, tai64n.NEVER)
_NO_NETWORKS = Networks()
_KEEPALIVE_LIMIT_S = 65_535
_OTHER_WAY = frozenset({Happening.MTU, Happening.MOVED})

_Job = tuple[Session, int, Received]
Heard = tuple[int, int, bool, Endpoint | None]
"""Our index of a session, the bytes of authentic datagrams under it, whether there was data among them, and where the
last one came from, None where all came from where the peer is."""
Opened = tuple[int, bytes, GsoHeader | None, int]
"""Our index of a session, a plaintext or a super-frame made of several, the ECN field of its datagram."""


class Tunnel:
    """Our end of the tunnel and all its peers.

    `private_key`: 32 bytes; `wall_ns`: the wall clock, for the stamps of initiations alone; `random_bytes(n)`: n
    unpredictable bytes; `cipher`: what seals and opens; `stamps`: what `stamps()` said in an earlier run; `networks`:
    what is announced, and which prefixes no peer may announce.
    `ValueError` where a key, a prefix, a keepalive or a way is impossible, two peers are one, or too much is announced.
    """

    __slots__ = (
        "_allowed",
        "_announced",
        "_by_name",
        "_common",
        "_desk",
        "_gauge",
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
        self._common = Common(local, cipher or Cipher(), random_bytes, wall_ns, self._way_to)
        self._desk = CookieDesk(local.public, random_bytes)
        self._gauge = LoadGauge()
        self._limits = SourceLimits()
        self._peers: dict[bytes, Peer] = {}  # by public key
        self._by_name: dict[str, Peer] = {}
        self._allowed = AllowedIps(())
        self._relaying = Relaying(role, self._common.indices)
        self._remembered: dict[bytes, Stamps] = {}
        for public, known in (stamps or {}).items():
            if len(known.received) != tai64n.STAMP_BYTES or len(known.sent) != tai64n.STAMP_BYTES:
                raise ValueError("a TAI64N stamp has 12 bytes")
            self._remembered[public] = known
        self._networks = _NO_NETWORKS
        self._announced: dict[Network, bytes] = {}  # whose a prefix is, by public key
        self.set_networks(networks, now)
        self.set_peers(peers, now)

    # Inner packets leave

    def peer_for(self, destination: int, version: int = 4) -> str | None:
        """The peer whose prefix, configured or announced, is the longest around an inner destination."""
        owners = self._allowed.owners(destination, version)
        return owners[0] if owners else None

    def send(self, peer: str, burst: Sequence[bytes], now: int) -> Effects:
        """Seal inner packets for a peer, or keep them until it has a session; what cannot leave comes back `unsent`.

        A packet longer than the path to the peer carries comes back with `TUNNEL_TOO_BIG`: the walk answers such with
        3/4, or cuts them, before, unless the path has become narrower since.
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
        """Ask for a session without a packet, for a peer that had given up say; nothing where that is under way."""
        out = Effects()
        self._by_name[peer].initiate(now, out)
        return self._wrapped(out, now)

    def known(self) -> list[str]:
        """The peers that an earlier run has had to do with (`stamps`)."""
        return [name for name, peer in self._by_name.items() if peer.stamps != _NO_STAMPS]

    def _wrapped(self, out: Effects, now: int) -> Effects:
        """What is for a peer behind a relay leaves in an envelope, the last thing of every call."""
        if self._relaying.is_used:
            self._relaying.wrap(now, out)
        return out

    # Datagrams come

    def receive(self, burst: Iterable[Received], now: int) -> Effects:
        """Take in datagrams. Whatever they hold, the outcome is a value."""
        out = Effects()
        unwrapped = self._take_in(burst, now, out)
        if unwrapped:  # none of these is an envelope
            self._take_in(unwrapped, now, out)
        if out.events:
            self._pass_on(now, out)
        self._judge(now, out)
        return self._wrapped(out, now)

    def _take_in(self, burst: Iterable[Received], now: int, out: Effects) -> list[Received]:
        """The same; what came in envelopes for us is returned. Handshakes follow the data of a burst: nobody sends any
        under keys that we have not answered yet."""
        unwrapped: list[Received] = []
        find = self._common.indices.find
        jobs: list[_Job] = []
        handshakes: list[tuple[Kind, Received]] = []  # taken after the data
        for received in burst:
            datagram = received.data
            kind = kind_of(datagram)
            if kind is Kind.DATA:
                _, receiver, counter = DATA_HEADER.unpack_from(datagram)
                session = find(receiver, counter, now)
                if isinstance(session, Drop):
                    out.drop(session)
                else:
                    jobs.append((session, counter, received))
            elif kind is None:
                out.drop(Drop.TUNNEL_MALFORMED)
            elif kind is Kind.RELAYED:
                message = self._relaying.open(received, now, out)
                if message is not None:
                    unwrapped.append(message)
            else:
                handshakes.append((kind, received))
        if jobs:
            self._open(jobs, now, out)
        for kind, received in handshakes:
            self._handshake(kind, received.data, received.source, now, out)
        self._relaying.settle(now, out)
        return unwrapped

    def _open(self, jobs: list[_Job], now: int, out: Effects) -> None:
        """Open data messages, and settle each run of one session at once. A control message ends a run: what comes
        after it may be allowed by it."""
        opened = self._common.cipher.open_burst([(job[0].keys.receive, job[2].data) for job in jobs])
        packets = out.packets
        at, end = 0, len(jobs)
        while at < end:
            admit = self._allowed.admit
            session = jobs[at][0]
            source = jobs[at][2].source
            peer = session.peer
            name = peer.config.name
            accept = session.window.accept
            control: bytes | None = None
            size = 0
            has_data = False
            while at < end and jobs[at][0] is session and control is None:
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
                peer.control(control, session, now, out)
                self._judge(now, out)

    # Packets that others seal and open (`bridge.ports.udp.lanes`)

    def lanes(self) -> list[Lane]:
        """What others may do until the next call of ours that changes it: after each call, ask again."""
        found = [peer.lane() for peer in self._peers.values()]
        return [lane for lane in found if lane is not None]

    def emitted(self, peer: str, size_bytes: int, now: int) -> Effects:
        """Others have sealed packets for a peer: so many bytes of datagrams."""
        out = Effects()
        if peer in self._by_name:
            self._by_name[peer].emitted(size_bytes, now, out)
        return self._wrapped(out, now)

    def taken(
        self, heard: Iterable[Heard], opened: Iterable[Opened], now: int
    ) -> tuple[Effects, list[tuple[str, bytes, GsoHeader | None]]]:
        """Others have opened datagrams of peers that are reached directly; windows have moved. `opened`: what is yet
        to be judged, in order. What may be walked comes back with the name of its peer."""
        out = Effects()
        frames: list[tuple[str, bytes, GsoHeader | None]] = []
        sessions = self._common.indices.sessions
        for index, size, has_data, moved_to in heard:
            peer = sessions[index].peer
            source = moved_to or peer.endpoint
            assert source is not None
            peer.received(sessions[index], source, size, now, out, has_data=has_data)
        for index, plain, claims, ecn in opened:
            session = sessions[index]
            peer = session.peer
            if is_control(plain):
                peer.control(plain, session, now, out)
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
            self._pass_on(now, out)
        self._judge(now, out)
        return self._wrapped(out, now), frames

    def _handshake(self, kind: Kind, message: bytes, source: Endpoint, now: int, out: Effects) -> None:
        """Everything but data: mac1 first, then what load demands, then the peer."""
        if kind is Kind.COOKIE_REPLY:
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
        if kind is Kind.RESPONSE:
            peer = self._common.indices.pending.get(index_at(message, 8))
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
        index = index_at(message, 4)
        session = self._common.indices.sessions.get(index)
        peer = self._common.indices.pending.get(index) if session is None else session.peer
        if peer is None:
            out.drop(Drop.TUNNEL_UNKNOWN_INDEX)
        else:
            peer.consume_cookie(message, now, out)

    def path_signals(self, signals: Iterable[TooBig], now: int) -> Effects:
        """Take in that datagrams of ours were too big for their path. A packet that was lost so is not repeated, and
        nobody knows any more which one it was: the next of its size is answered by the walk."""
        out = Effects()
        there: dict[tuple[bytes, int], list[Peer]] = {}
        for peer in self._peers.values():
            relay = self._relay_of(peer.endpoint)
            where = peer.endpoint if relay is None else relay.endpoint
            if where is not None:
                there.setdefault((where.address, where.port), []).append(peer)
        for signal in signals:
            # What our own kernel says is true for all that are reached there: the first must not end the loop.
            believed = [
                peer.too_big(signal, now, out)
                for peer in there.get((signal.endpoint.address, signal.endpoint.port), ())
            ]
            if not any(believed):
                out.drop(Drop.TUNNEL_SIGNAL)
        self._pass_on(now, out)
        return self._wrapped(out, now)

    def _way_to(self, endpoint: Endpoint) -> Way:
        """How an endpoint is reached: by a relay, no better than the relay is."""
        if not endpoint.via:
            return direct_way(endpoint, self._mtu_bytes)
        relay = self._relay_of(endpoint)
        if relay is None:  # none that is configured: nothing can be sent
            return Way(self._mtu_bytes).through_relay(self._mtu_bytes)
        return relay.path.way.through_relay(relay.path.mtu_bytes)

    def _relay_of(self, endpoint: Endpoint | None) -> Peer | None:
        return self._by_name.get(endpoint.via) if endpoint is not None and endpoint.via else None

    def _pass_on(self, now: int, out: Effects) -> None:
        """What is another way to a relay is one for all behind it."""
        for what, name in tuple(out.events):
            if what in _OTHER_WAY:
                for peer in self._peers.values():
                    if peer.endpoint is not None and peer.endpoint.via == name:
                        peer.look_at_the_way(now, out)

    # Time

    def tick(self, now: int) -> Effects:
        """Fire what is due. Afterwards `next_deadline` is later than `now`."""
        out = Effects()
        while due := [peer for peer in self._peers.values() if peer.timers.earliest() <= now]:
            for peer in due:
                peer.tick(now, out)
            self._pass_on(now, out)  # which may give others something to do
        self._judge(now, out)
        return self._wrapped(out, now)

    def next_deadline(self) -> int | None:
        """When the earliest timer fires, in ns; None where none runs."""
        earliest = min((peer.timers.earliest() for peer in self._peers.values()), default=OFF)
        return None if earliest == OFF else earliest

    # What peers announce

    def _judge(self, now: int, out: Effects) -> None:
        """Where anything about announcements changed: who gets which prefix now? Who announced hears of it."""
        if not self._common.is_unjudged:
            return
        self._common.is_unjudged = False
        heard: list[Peer] = []
        claimants: list[Claimant] = []
        for key, peer in self._peers.items():
            claim, faults = peer.hearing.claim, peer.hearing.faults
            if claim is None:
                continue
            if faults is None:
                faults = [fault_of(network, peer.config, self._allowed, self._networks) for network in claim.networks]
                peer.hearing.faults = faults
            heard.append(peer)
            claimants.append(Claimant(key, claim.networks, faults, peer.has_given_up))
        before = self._announced
        self._announced, verdicts = shared_out(claimants, before)
        self._allowed.announce({network: self._peers[key].config.name for network, key in self._announced.items()})
        changed = {key for network, key in before.items() if self._announced.get(network) != key}
        for peer, found in zip(heard, verdicts, strict=True):
            if peer.hearing.verdicts == found:
                continue
            peer.hearing.verdicts = found
            changed.add(peer.config.public_key)
            for verdict in found:
                if verdict.is_refusal:
                    out.drop(Drop.TUNNEL_ANNOUNCE_REFUSED)
            peer.answer(now, out)
        out.events += [
            Event(Happening.ANNOUNCED, peer.config.name) for key, peer in self._peers.items() if key in changed
        ]

    def _judge_all(self, now: int, out: Effects) -> None:
        """The same after the configuration changed."""
        for peer in self._peers.values():
            peer.hearing.faults = None
        self._common.is_unjudged = True
        self._judge(now, out)

    def announced(self) -> dict[str, tuple[Network, ...]]:
        """What peers announced and got, by peer; an event `ANNOUNCED` says when it changed, or a peer went."""
        found: dict[str, list[Network]] = {}
        for network, key in self._announced.items():
            found.setdefault(self._peers[key].config.name, []).append(network)
        return {name: tuple(held) for name, held in found.items()}

    # The operator

    def set_networks(self, networks: Networks, now: int) -> Effects:
        """Take over what is announced and what no peer may announce; `ValueError` where there is too much of it, or a
        prefix is none."""
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
        """Take over a configuration, or nothing of it (`ValueError`). Without a `role` it stays as it is. No event
        tells of announcements that went with their peers.

        A peer that keeps its public and pre-shared key keeps its sessions and what waits for one, whatever its name is
        now; a learned endpoint stays unless another one was written.
        """
        role = self._relaying.role if role is None else role
        wanted = with_ways(list(peers), role)
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
            if old is None or old.keys.psk != config.psk:
                fresh[config.public_key] = RemoteKeys(self._common.local, config.public_key, config.psk)
        out = Effects()
        for public, old in self._peers.items():
            self._remembered[public] = old.stamps
            if public in fresh or public not in keys:
                old.close(out)
        for config in wanted:
            public = config.public_key
            if public in fresh:
                stamps = self._remembered.get(public, _NO_STAMPS)
                made[public] = Peer(config, fresh[public], self._common, stamps, now)
            else:
                made[public] = self._peers[public]
                made[public].configure(config, now, out)
        self._peers = made
        self._by_name = {peer.config.name: peer for peer in made.values()}
        self._allowed = allowed
        self._relaying.configure(role, self._by_name, out)
        self._announced = {network: key for network, key in self._announced.items() if key in made}
        self._judge_all(now, out)
        self._look_at_ways(now, out)
        return self._wrapped(out, now)

    def set_endpoint(self, peer: str, endpoint: Endpoint, now: int) -> Effects:
        """A name was resolved anew: the peer is there from now on, until it is heard from elsewhere. No event tells
        that it moved, only what that means for the sizes of packets, also of those behind it."""
        out = Effects()
        self._by_name[peer].move(endpoint, now, out)
        self._look_at_ways(now, out)
        return out

    def set_mtu(self, mtu_bytes: int, now: int) -> Effects:
        """The longest inner packet for any peer; for each of them its path may say less."""
        out = Effects()
        self._mtu_bytes = mtu_bytes
        self._look_at_ways(now, out)
        return out

    def _look_at_ways(self, now: int, out: Effects) -> None:
        """All of them anew, those to relays first."""
        for peer in sorted(
            self._peers.values(), key=lambda peer: peer.endpoint is not None and bool(peer.endpoint.via)
        ):
            peer.look_at_the_way(now, out)

    def mtu_towards(self, peer: str) -> int:
        """The longest inner packet that `send` takes for a peer, in bytes."""
        return self._by_name[peer].path.mtu_bytes

    def stamps(self) -> dict[bytes, Stamps]:
        """What must survive a restart, by public key; it is no secret.

        An event says when it changed; whoever writes it down does so before the datagrams of that call leave.
        """
        return self._remembered | {public: peer.stamps for public, peer in self._peers.items()}

    def status(self, now: int) -> list[Status]:
        """All peers in the order of the configuration."""
        return [peer.status(now) for peer in self._peers.values()]

    @property
    def public_key(self) -> bytes:
        """Ours."""
        return self._common.local.public

    def close(self) -> Effects:
        """Wipe every key. The tunnel is of no use afterwards."""
        out = Effects()
        for peer in self._peers.values():
            peer.close(out)
        self._peers = {}
        self._by_name = {}
        self._relaying.configure(self._relaying.role, {}, out)
        self._common.local.wipe()
        return out
