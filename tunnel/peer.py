"""One peer: its sessions, its timers, and the packets that wait for a session.

Three slots hold sessions. *current* is what we send under. *previous* is the one before: late packets under it are
still taken. *next* is what we answered an initiation with: it becomes current with the first data under it, because
only that shows that the initiator has it too. A handshake *series* is under way while `timers.retransmit` runs: an
initiation and its repetitions, or the wait for that first data.

The functions stand in the order of a peer's life: packets leave, a handshake, packets come, time passes. The file is
long because every one of them moves the same slots and timers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from tunnel import control, tai64n
from tunnel.announce import RENEW_NS, Hearing, Telling
from tunnel.common import Common
from tunnel.control import Control, ControlKind
from tunnel.cookies import CookieJar
from tunnel.ecn import HANDSHAKE_TOS, outer_tos
from tunnel.effects import Datagram, Effects, Endpoint, Event, Happening, PeerConfig, Stamps, Status, TooBig
from tunnel.envelope import Envelope
from tunnel.messages import index_at
from tunnel.noise import Called, Initiated, RemoteKeys, SessionKeys, finish, initiate, read_timestamp, respond
from tunnel.pathmtu import MOST_PROBES, PathMtu
from tunnel.session import Lane, Session
from tunnel.timers import (
    ATTEMPTS,
    ATTEMPTS_IN_VAIN,
    ERASE_NS,
    INITIATION_PAUSE_NS,
    KEEPALIVE_NS,
    LAST_MINUTE_NS,
    OFF,
    REKEY_TIMEOUT_NS,
    UNANSWERED_NS,
    Timers,
)
from wire.drop import Drop
from wire.units import SECOND_NS

STAGED_PACKETS: Final = 128
NOWHERE: Final = Endpoint(bytes(4), 0)
_KEEPALIVE = (b"",)


class Peer:
    """One peer of the tunnel. `stamps`: what an earlier run knew of it."""

    __slots__ = (
        "_attempts",
        "_common",
        "_consumed_ns",
        "_current",
        "_initiated_ns",
        "_jar",
        "_next",
        "_pending",
        "_pending_index",
        "_previous",
        "_staged",
        "config",
        "endpoint",
        "has_given_up",
        "hearing",
        "keys",
        "latest_handshake",
        "path",
        "rx_bytes",
        "stamps",
        "telling",
        "timers",
        "tx_bytes",
    )

    def __init__(self, config: PeerConfig, keys: RemoteKeys, common: Common, stamps: Stamps, now: int) -> None:
        self._common = common
        self._jar = CookieJar(config.public_key)
        self._current: Session | None = None
        self._previous: Session | None = None
        self._next: Session | None = None
        self._pending: Initiated | None = None
        self._pending_index = 0
        self._staged: deque[bytes] = deque()
        self._attempts = 0
        self._initiated_ns = -OFF
        self._consumed_ns = -OFF
        self.keys = keys
        self.stamps = stamps
        self.timers = Timers()
        self.hearing = Hearing()
        self.telling = Telling(common.offer)
        self.path = PathMtu(common.way_to(NOWHERE), common.number)
        self.config = replace(config, endpoint=None, persistent_keepalive_s=0)
        self.endpoint: Endpoint | None = None
        self.has_given_up = False
        self.latest_handshake: int | None = None
        self.rx_bytes = 0
        self.tx_bytes = 0
        self.configure(config, now, Effects())

    def configure(self, config: PeerConfig, now: int, out: Effects) -> None:
        """Take over what the operator changed. An endpoint that was learned stays unless another one was written.

        The endpoint of a peer behind a relay is written: its id, and the relay's name (`tunnel.relay.with_ways`).
        """
        if config.endpoint is not None and config.endpoint != self.config.endpoint:
            self._is_at(config.endpoint, now)
        elif self.config.via and not config.via:  # the relay knows where it is, we do not
            self.endpoint = config.endpoint
        if self.endpoint is None:  # its sessions and its series lead nowhere until it calls
            self.erase()
            self._refuse(self._staged, Drop.TUNNEL_NO_ENDPOINT, out)
            self._staged.clear()
            self.timers = Timers()
        if not config.persistent_keepalive_s or self.endpoint is None:
            self.timers.persistent = OFF
        elif config.persistent_keepalive_s != self.config.persistent_keepalive_s or self.timers.persistent == OFF:
            self.timers.persistent = now
        self.config = replace(config, psk=b"")  # the key lives in `keys`, which can be wiped

    def move(self, endpoint: Endpoint, now: int, out: Effects) -> None:
        """The operator (or a name server) says where the peer is; one behind a relay is nowhere else."""
        if self.config.via:
            return
        before = self.path.mtu_bytes
        self._is_at(endpoint, now)
        self._follow_path(before, out)
        if self.config.persistent_keepalive_s and self.timers.persistent == OFF:
            self.timers.persistent = now

    def _is_at(self, endpoint: Endpoint, now: int) -> None:
        """Another endpoint. Another port alone is a NAT on the way that forgot us: the same path."""
        before, self.endpoint = self.endpoint, endpoint
        if before is None or (before.address, before.via) != (endpoint.address, endpoint.via):
            self.path.moved(self._common.way_to(endpoint), now)
            self.timers.path = self.path.due_ns

    def may_be_at(self, source: Endpoint) -> bool:
        """False for a message of ours that came through a relay which does not speak for this peer."""
        return not source.via or source == self.endpoint

    # Packets leave

    def send(self, burst: Sequence[bytes], now: int, out: Effects) -> None:
        """Seal a burst, or keep it until there is a session. A packet has 1 byte at least."""
        if self.endpoint is None:
            self._refuse(burst, Drop.TUNNEL_NO_ENDPOINT, out)
            return
        burst = self._fitting(burst, out)
        if not burst:
            return
        room = 0 if self._current is None else self._current.room(now)
        if room >= len(burst):
            self._emit(burst, now, out)
            return
        if room > 0:
            self._emit(burst[:room], now, out)
        self._staged.extend(burst[room:])
        while len(self._staged) > STAGED_PACKETS:
            out.refuse(self.config.name, self._staged.popleft(), Drop.TUNNEL_QUEUE_FULL)
        self._ask(now, out)

    def _fitting(self, burst: Sequence[bytes], out: Effects) -> Sequence[bytes]:
        """The burst without what is too long for the path; the walk let it in before it knew."""
        mtu_bytes = self.path.mtu_bytes
        if max(map(len, burst)) <= mtu_bytes:
            return burst
        self._refuse((packet for packet in burst if len(packet) > mtu_bytes), Drop.TUNNEL_TOO_BIG, out)
        return [packet for packet in burst if len(packet) <= mtu_bytes]

    def keepalive(self, now: int, out: Effects) -> None:
        """Send an empty packet; without a session, ask for one, whose confirmation does the same."""
        if self._current is not None and self._current.room(now) > 0:
            self._emit(_KEEPALIVE, now, out)
        else:
            self._ask(now, out)

    def _emit(self, packets: Sequence[bytes], now: int, out: Effects) -> None:
        """Seal under the current session, which has room."""
        session, endpoint = self._current, self.endpoint
        assert session is not None
        assert endpoint is not None
        common = self._common
        first = session.take(len(packets))
        sealed = common.cipher.seal_burst(session.keys.send, session.remote, first, packets, self.path.mtu_bytes)
        datagrams = out.datagrams
        size = 0
        for packet, datagram in zip(packets, sealed, strict=True):
            datagrams.append(Datagram(endpoint, datagram, outer_tos(packet)))
            size += len(datagram)
        self._emitted(session, size, now, out, wants_answer=packets is not _KEEPALIVE)

    def carry(self, envelopes: Sequence[Envelope], now: int, out: Effects) -> bool:
        """Send envelopes to this neighbour; False where there is no session to send them under: it is asked for."""
        session, endpoint = self._current, self.endpoint
        if endpoint is None:
            return False
        if session is None or session.room(now) < len(envelopes):
            self._ask(now, out)
            return False
        size = 0
        for counter, envelope in enumerate(envelopes, session.take(len(envelopes))):
            datagram = envelope.sealed(session.keys.send, session.remote, counter)
            out.datagrams.append(Datagram(endpoint, datagram, envelope.tos))
            size += len(datagram)
        self._emitted(session, size, now, out, wants_answer=True)
        return True

    def _emitted(self, session: Session, size_bytes: int, now: int, out: Effects, *, wants_answer: bool) -> None:
        """What was sealed under the current session counts for the timers."""
        self.tx_bytes += size_bytes
        self._sent(now)
        if wants_answer and self.timers.unanswered == OFF:
            self.timers.unanswered = now + UNANSWERED_NS + self._common.jitter_ns()
        if session.is_due(now):
            self.initiate(now, out)

    def lane(self) -> Lane | None:
        """What others may do under our sessions; not under *next*, since the first data under it changes the slots."""
        session, endpoint = self._current, self.endpoint
        if session is None or endpoint is None or endpoint.via:
            return None
        receiving = (session,) if self._previous is None else (session, self._previous)
        return Lane(self.config.name, endpoint, self.path.mtu_bytes, session, receiving)

    def emitted(self, size_bytes: int, now: int, out: Effects) -> None:
        """Others sealed packets under our current session."""
        if self._current is None:
            self.tx_bytes += size_bytes
        else:
            self._emitted(self._current, size_bytes, now, out, wants_answer=True)

    def _refuse(self, packets: Iterable[bytes], reason: Drop, out: Effects) -> None:
        for packet in packets:
            out.refuse(self.config.name, packet, reason)

    def _ask(self, now: int, out: Effects) -> None:
        """A session is wanted. One that waits for its first data may be there in a moment: give it 5 s."""
        waiting = self._next
        if waiting is not None and now - waiting.created_ns < REKEY_TIMEOUT_NS and self.timers.retransmit == OFF:
            self._attempts = 0
            self.timers.retransmit = waiting.created_ns + REKEY_TIMEOUT_NS + self._common.jitter_ns()
            return
        self.initiate(now, out)

    # A handshake

    def initiate(self, now: int, out: Effects) -> None:
        """Begin a series of initiations, unless one is under way or nobody knows where to."""
        if self.timers.retransmit != OFF or self.endpoint is None:
            return
        self._attempts = 0
        if now - self._initiated_ns < REKEY_TIMEOUT_NS:
            self.timers.retransmit = self._initiated_ns + REKEY_TIMEOUT_NS + self._common.jitter_ns()
            return
        self._send_initiation(now, out)

    def _send_initiation(self, now: int, out: Effects) -> None:
        common = self._common
        assert self.endpoint is not None
        self._drop_pending()
        self.stamps = self.stamps._replace(sent=tai64n.later(common.wall_ns(), self.stamps.sent))
        out.events.append(Event(Happening.STAMPED, self.config.name))
        index = common.indices.draw()
        body, self._pending = initiate(common.local, self.keys, common.random_bytes(32), self.stamps.sent, index)
        self._pending_index = index
        common.indices.pending[index] = self
        self._attempts += 1
        self._initiated_ns = now
        self._transmit(self._jar.finish(body, now), out)
        self._sent(now)
        self.timers.retransmit = now + REKEY_TIMEOUT_NS + common.jitter_ns()

    def consume_initiation(self, called: Called, message: bytes, source: Endpoint, now: int, out: Effects) -> None:
        """An initiation that says it is from this peer: check the rest of it, and answer."""
        stamp = read_timestamp(called, self.keys, message)
        if stamp is None or stamp <= self.stamps.received or now - self._consumed_ns < INITIATION_PAUSE_NS:
            called.wipe()
            if stamp is None:
                out.drop(Drop.TUNNEL_HANDSHAKE)
            else:
                is_old = stamp <= self.stamps.received
                out.drop(Drop.TUNNEL_OLD_TIMESTAMP if is_old else Drop.TUNNEL_TOO_SOON)
            return
        common = self._common
        index = common.indices.draw()
        answer = respond(called, self.keys, common.random_bytes(32), index)
        if answer is None:
            out.drop(Drop.TUNNEL_HANDSHAKE)
            return
        self.stamps = self.stamps._replace(received=stamp)
        out.events.append(Event(Happening.STAMPED, self.config.name))
        self._consumed_ns = now
        self._heard(source, len(message), now, out)
        body, keys = answer
        self._end(self._next)
        self._next = self._begin(keys, index, called.sender, now, is_initiator=False)
        self._transmit(self._jar.finish(body, now), out)
        self._sent(now)

    def consume_response(self, message: bytes, source: Endpoint, now: int, out: Effects) -> None:
        """A response to our pending initiation: the session is ours at once, and its first packet confirms it."""
        assert self._pending is not None
        keys = finish(self._pending, self._common.local, self.keys, message)
        if keys is None:
            out.drop(Drop.TUNNEL_HANDSHAKE)
            return
        index = self._pending_index
        self._drop_pending()
        self._heard(source, len(message), now, out)
        session = self._begin(keys, index, index_at(message, 4), now, is_initiator=True)
        # Where both called at once, *next* stays: the peer may already send under what we answered it with.
        self._retire(self._current)
        self._current = session
        self._ready(now, out)
        if not self._flush(now, out):
            self._emit(_KEEPALIVE, now, out)

    def consume_cookie(self, message: bytes, now: int, out: Effects) -> None:
        """A cookie for the next handshake message; nothing is sent for it now."""
        if not self._jar.take(message, now):
            out.drop(Drop.TUNNEL_COOKIE)

    def _begin(self, keys: SessionKeys, local: int, remote: int, now: int, *, is_initiator: bool) -> Session:
        session = Session(self, keys, local, remote, now, is_initiator=is_initiator)
        self._common.indices.sessions[local] = session
        self.timers.erase = now + ERASE_NS
        return session

    def _retire(self, session: Session | None) -> None:
        """Make a session the previous one."""
        self._end(self._previous)
        self._previous = session

    def _end(self, session: Session | None) -> None:
        if session is not None:
            del self._common.indices.sessions[session.local]
            session.wipe()

    def _drop_pending(self) -> None:
        if self._pending is not None:
            del self._common.indices.pending[self._pending_index]
            self._pending.wipe()
            self._pending = None

    def _ready(self, now: int, out: Effects) -> None:
        """The handshake is complete: the current session is a new one. Before anything else the peer hears what lies
        behind us, or it would refuse the packets that wait."""
        self.timers.retransmit = OFF
        if self.has_given_up:
            self._common.is_unjudged = True
        self.has_given_up = False
        self.latest_handshake = now
        self.path.session(now)
        self.timers.path = self.path.due_ns
        out.events.append(Event(Happening.SESSION, self.config.name))
        self.timers.announce = OFF
        if self.telling.begin():
            self._announce(now, out)

    def _flush(self, now: int, out: Effects) -> bool:
        """Send what waited; False where nothing did."""
        if not self._staged:
            return False
        packets = self._fitting(list(self._staged), out)
        self._staged.clear()
        if not packets:
            return False
        self._emit(packets, now, out)
        return True

    def _transmit(self, message: bytes, out: Effects) -> None:
        assert self.endpoint is not None
        out.datagrams.append(Datagram(self.endpoint, message, HANDSHAKE_TOS))
        self.tx_bytes += len(message)

    # Packets come

    def received(
        self, session: Session, source: Endpoint, size_bytes: int, now: int, out: Effects, *, has_data: bool
    ) -> None:
        """Authenticated data messages came under one of our sessions, the last of them from `source`."""
        self._heard(source, size_bytes, now, out)
        if session is self._next:
            self._retire(self._current)
            self._current = session
            self._next = None
            self._ready(now, out)
            self._flush(now, out)
        current = self._current
        if current is not None and current.is_initiator and now - current.created_ns >= LAST_MINUTE_NS:
            self.initiate(now, out)
        if has_data and self.timers.keepalive == OFF:
            self.timers.keepalive = now + KEEPALIVE_NS
        claim = self.hearing.claim
        if claim is not None and session.created_ns > claim.created_ns and self.timers.withdraw == OFF:
            self.timers.withdraw = now + RENEW_NS

    def control(self, plain: bytes, session: Session, now: int, out: Effects) -> None:
        """A control message came under one of our sessions (`tunnel.control`)."""
        message = control.read(plain)
        if message is None:
            out.drop(Drop.TUNNEL_CONTROL)
            return
        before = self.path.mtu_bytes
        self.path.spoken(now)
        if message.kind is ControlKind.PROBE:
            self.tell(Control(ControlKind.PROBED, message.number), now, out)
        elif message.kind is ControlKind.ANNOUNCE:
            self._hear(message, session, now, out)
        elif message.kind is ControlKind.ANNOUNCED:
            outcome = self.telling.answered(message, now)
            if isinstance(outcome, Drop):
                out.drop(outcome)
            else:
                self.timers.announce = OFF
                if outcome:
                    out.events.append(Event(Happening.ANSWERED, self.config.name))
        elif message.kind is ControlKind.PROBED:
            self.path.answered(message.number, now)
        self._follow_path(before, out)

    def tell(self, message: Control, now: int, out: Effects) -> None:
        """Send a control message, where there is a session to send it under; else it is as if the wire had lost it."""
        if self._current is not None and self._current.room(now) > 0:
            self._emit_controls((message,), self.path.mtu_bytes, out)

    def _emit_controls(self, messages: Sequence[Control], padded_to_bytes: int, out: Effects) -> None:
        """Seal control messages. They have answers and repetitions of their own, and probes may be too long for the
        path: no timer of the protocol takes them for data, which is answered, or for a keepalive."""
        session, endpoint = self._current, self.endpoint
        assert session is not None
        assert endpoint is not None
        first = session.take(len(messages))
        packets = [message.packed() for message in messages]
        for datagram in self._common.cipher.seal_burst(
            session.keys.send, session.remote, first, packets, padded_to_bytes
        ):
            out.datagrams.append(Datagram(endpoint, datagram))
            self.tx_bytes += len(datagram)

    def _hear(self, message: Control, session: Session, now: int, out: Effects) -> None:
        """The peer announces. What is new is answered once it was judged, which the tunnel does for all peers."""
        outcome = self.hearing.take(message, session.created_ns, now)
        if isinstance(outcome, Drop):
            out.drop(outcome)
            return
        self.timers.withdraw = OFF
        if outcome:
            self._common.is_unjudged = True
        else:
            self.answer(now, out)

    def answer(self, now: int, out: Effects) -> None:
        """Tell the peer what became of the prefixes that it announced."""
        message = self.hearing.answer()
        if message is not None:
            self.tell(message, now, out)

    def offer(self, now: int, out: Effects) -> None:
        """The operator changed what we announce."""
        if self.telling.change(self._common.offer):
            self._announce(now, out)

    def _announce(self, now: int, out: Effects) -> None:
        """One attempt to tell the peer our prefixes, where there is a session; the next session tells them anew."""
        self.timers.announce = OFF
        if self._current is None or self._current.room(now) == 0:
            return
        self.tell(self.telling.message(), now, out)
        pause = self.telling.pause_ns()
        if pause is not None:
            self.timers.announce = now + pause

    def _heard(self, source: Endpoint, size_bytes: int, now: int, out: Effects) -> None:
        """Anything authenticated came: that is where the peer is, unless it is behind a relay by configuration."""
        self.rx_bytes += size_bytes
        self.timers.unanswered = OFF
        self._restart_persistent(now)
        if self.config.via:
            return
        if source != self.endpoint:
            before = self.path.mtu_bytes
            self._is_at(source, now)
            self._follow_path(before, out)
            out.events.append(Event(Happening.MOVED, self.config.name))
        self.endpoint = source  # also an equal one: whoever made it may know more of it, our own side say

    def _sent(self, now: int) -> None:
        """Anything authenticated was sent."""
        self.timers.keepalive = OFF
        self._restart_persistent(now)

    def _restart_persistent(self, now: int) -> None:
        if self.config.persistent_keepalive_s:
            self.timers.persistent = now + self.config.persistent_keepalive_s * SECOND_NS

    # The path

    def too_big(self, signal: TooBig, now: int, out: Effects) -> bool:
        """Something that was sent to our endpoint did not fit; False where that is not to be believed.

        Our own kernel is, and who quotes a data message of a living session. What else comes is a hint at most.
        """
        before = self.path.mtu_bytes
        sessions = (self._current, self._previous)
        is_sure = not signal.origin or any(one is not None and one.has_sent(signal.quoted, now) for one in sessions)
        if is_sure:
            self.path.told(signal.mtu_bytes, now)
        else:
            self.path.hinted(now)
        self._follow_path(before, out)
        return is_sure

    def look_at_the_way(self, now: int, out: Effects) -> None:
        """What every packet to us is bound by may be something else now."""
        before = self.path.mtu_bytes
        self.path.changed(self._common.way_to(self.endpoint or NOWHERE), now)
        self._follow_path(before, out)

    def _probe(self, now: int, out: Effects) -> None:
        before = self.path.mtu_bytes
        can_probe = self.endpoint is not None and self._current is not None and self._current.room(now) >= MOST_PROBES
        probes = self.path.tick(now, can_probe=can_probe)
        if probes:
            self._emit_controls([control.probe(*probe) for probe in probes], 0, out)
        self._follow_path(before, out)

    def _follow_path(self, mtu_before: int, out: Effects) -> None:
        self.timers.path = self.path.due_ns
        if self.path.mtu_bytes != mtu_before:
            out.events.append(Event(Happening.MTU, self.config.name))

    # Time passes

    def tick(self, now: int, out: Effects) -> None:
        """Fire what is due; afterwards no deadline lies at or before `now`."""
        timers = self.timers
        if timers.erase <= now:
            timers.erase = OFF
            self.erase()
            out.events.append(Event(Happening.ERASED, self.config.name))
        if timers.withdraw <= now:
            self._forget()
        if timers.announce <= now:
            self._announce(now, out)
        if timers.retransmit <= now:
            self._retransmit(now, out)
        if timers.unanswered <= now:
            timers.unanswered = OFF
            self.initiate(now, out)
        if timers.keepalive <= now:
            timers.keepalive = OFF
            self.keepalive(now, out)
        if timers.persistent <= now:
            self._restart_persistent(now)
            self.keepalive(now, out)
        if timers.path <= now:
            self._probe(now, out)

    def _retransmit(self, now: int, out: Effects) -> None:
        """Repeat the initiation, or give up and flush what waits."""
        if now - self._initiated_ns < REKEY_TIMEOUT_NS:
            self.timers.retransmit = self._initiated_ns + REKEY_TIMEOUT_NS + self._common.jitter_ns()
            return
        if self._attempts < ATTEMPTS:
            if self._attempts and self._attempts % ATTEMPTS_IN_VAIN == 0:
                out.events.append(Event(Happening.UNANSWERED, self.config.name))
            self._send_initiation(now, out)
            return
        self.timers.retransmit = OFF
        self._drop_pending()
        self.has_given_up = True
        self._common.is_unjudged = True
        self._refuse(self._staged, Drop.TUNNEL_GAVE_UP, out)
        self._staged.clear()
        if self.timers.erase == OFF:
            self.timers.erase = now + ERASE_NS
        out.events.append(Event(Happening.GAVE_UP, self.config.name))

    def _forget(self) -> None:
        """What the peer announced counts no more."""
        self.timers.withdraw = OFF
        if self.hearing.forget():
            self._common.is_unjudged = True

    def erase(self) -> None:
        """Wipe every key of a session and the pending ephemeral one; what waits goes on waiting for its series.

        What the peer announced goes with them.
        """
        self._forget()
        self._drop_pending()
        for session in (self._current, self._previous, self._next):
            self._end(session)
        self._current = self._previous = self._next = None

    def close(self, out: Effects) -> None:
        """The peer is no longer configured."""
        self.erase()
        self._refuse(self._staged, Drop.TUNNEL_NO_PEER, out)
        self._staged.clear()
        self.timers = Timers()
        self.keys.wipe()

    def status(self, now: int) -> Status:
        """The peer, for people."""
        current = self._current
        return Status(
            name=self.config.name,
            public_key=self.config.public_key,
            endpoint=self.endpoint,
            latest_handshake=self.latest_handshake,
            session_since=None if current is None else current.created_ns,
            rx_bytes=self.rx_bytes,
            tx_bytes=self.tx_bytes,
            staged=len(self._staged),
            persistent_keepalive_s=self.config.persistent_keepalive_s,
            mtu_bytes=self.path.mtu_bytes,
            has_session=current is not None and current.room(now) > 0,
            has_given_up=self.has_given_up,
            announced=self.hearing.shown(),
            told=self.telling.shown(),
            path=self.path.state,
        )
