"""One peer: it moves sessions between their slots, sets timers, and keeps packets until there is a session.

| duty | module |
|---|---|
| the messages of a handshake | `tunnel.peers.handshake` |
| the three sessions and their indices | `tunnel.peers.slots` |
| announced prefixes | `tunnel.peers.announcing` |
| the longest packet that the path carries | `tunnel.pathmtu` |
| deadlines and their lengths | `tunnel.peers.timers`, `tunnel.constants` |

A handshake *series* is under way while `timers.retransmit` runs: an initiation and its repetitions, or the wait for the
first data under *next*. The methods stand in the order of a peer's life: packets leave, a handshake, packets come, the
path, time passes. WireGuard whitepaper 2.1 (endpoints and roaming), 3 (send and receive flow), 6 (timers).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from tunnel import control
from tunnel.common import Common
from tunnel.constants import (
    ATTEMPTS,
    ATTEMPTS_IN_VAIN,
    ERASE_NS,
    KEEPALIVE_NS,
    OFF,
    REKEY_TIMEOUT_NS,
    REKEY_WHILE_RECEIVING_NS,
    UNANSWERED_NS,
)
from tunnel.control import ControlKind, ControlMessage
from tunnel.ecn import HANDSHAKE_TOS, outer_tos
from tunnel.effects import Datagram, Effects, Endpoint, Happening, PeerConfig, PeerEvent, Stamps, Status, TooBig
from tunnel.envelope import Envelope
from tunnel.indices import IndexTable
from tunnel.noise import Called, RemoteKeys
from tunnel.pathmtu import MOST_PROBES, PathMtu
from tunnel.peers.announcing import Announcing
from tunnel.peers.handshake import Agreed, Handshake
from tunnel.peers.slots import SessionSlots
from tunnel.peers.timers import Timers
from tunnel.session import Lane, Session
from wire.drop import Drop
from wire.units import SECOND_NS

STAGED_PACKETS: Final = 128
"""Packets that wait for a session; one more lets the oldest go, which comes back `unsent`."""
NOWHERE: Final = Endpoint(bytes(4), 0)
"""The endpoint that sizes are calculated for while a peer has none."""
_KEEPALIVE = (b"",)


class Peer:
    """One peer of the tunnel. `keys`: its identity; `indices`: the tunnel's, where this peer owns the indices of its
    sessions; `stamps`: of an earlier run."""

    __slots__ = (
        "_common",
        "_staged",
        "announcing",
        "config",
        "endpoint",
        "handshake",
        "has_given_up",
        "latest_handshake",
        "path",
        "rx_bytes",
        "slots",
        "timers",
        "tx_bytes",
    )

    def __init__(
        self,
        config: PeerConfig,
        keys: RemoteKeys,
        common: Common,
        indices: IndexTable[Peer],
        stamps: Stamps,
        now: int,
    ) -> None:
        self._common = common
        self._staged: deque[bytes] = deque()
        self.timers = Timers()
        self.slots: SessionSlots[Peer] = SessionSlots(indices, self)
        self.handshake: Handshake[Peer] = Handshake(keys, common, indices, self, stamps)
        self.announcing = Announcing(common, self.timers)
        self.path = PathMtu(common.limits_of(NOWHERE), common.number)
        self.config = replace(config, endpoint=None, persistent_keepalive_s=0)
        self.endpoint: Endpoint | None = None
        self.has_given_up = False
        self.latest_handshake: int | None = None
        self.rx_bytes = 0
        self.tx_bytes = 0
        self.configure(config, now, Effects())

    def configure(self, config: PeerConfig, now: int, out: Effects) -> None:
        """Take over the operator's changes. A learned endpoint stays unless another one was written.

        The endpoint of a peer behind a relay is its id and the relay's name (`tunnel.relay.with_next_hops`).
        """
        if config.endpoint is not None and config.endpoint != self.config.endpoint:
            self._set_endpoint(config.endpoint, now)
        elif self.config.via and not config.via:  # only the relay knows the peer's address
            self.endpoint = config.endpoint
        if self.endpoint is None:  # sessions and a series lead nowhere until the peer calls
            self.erase()
            self._refuse_staged(Drop.TUNNEL_NO_ENDPOINT, out)
            self.timers.stop()
        if not config.persistent_keepalive_s or self.endpoint is None:
            self.timers.persistent = OFF
        elif config.persistent_keepalive_s != self.config.persistent_keepalive_s or self.timers.persistent == OFF:
            self.timers.persistent = now
        self.config = replace(config, psk=b"")  # `handshake.keys` has the pre-shared key, where it can be wiped

    def move(self, endpoint: Endpoint, now: int, out: Effects) -> None:
        """The operator, or a name server, says where the peer is. A peer behind a relay stays there."""
        if self.config.via:
            return
        before = self.path.mtu_bytes
        self._set_endpoint(endpoint, now)
        self._follow_path(before, out)
        if self.config.persistent_keepalive_s and self.timers.persistent == OFF:
            self.timers.persistent = now

    def _set_endpoint(self, endpoint: Endpoint, now: int) -> None:
        """Another endpoint. Where only the port differs, a NAT on the path has forgotten us: the path is the same."""
        before, self.endpoint = self.endpoint, endpoint
        if before is None or (before.address, before.via) != (endpoint.address, endpoint.via):
            self.path.moved(self._common.limits_of(endpoint), now)
            self.timers.path = self.path.due_ns

    def may_be_at(self, source: Endpoint) -> bool:
        """False for a message to us that came through a relay which does not relay for this peer."""
        return not source.via or source == self.endpoint

    def _happened(self, what: Happening, out: Effects) -> None:
        out.events.append(PeerEvent(what, self.config.name))

    # Packets leave

    def send(self, burst: Sequence[bytes], now: int, out: Effects) -> None:
        """Seal a burst, or keep it until there is a session. Each packet has at least 1 byte."""
        if self.endpoint is None:
            self._refuse(burst, Drop.TUNNEL_NO_ENDPOINT, out)
            return
        burst = self._fitting(burst, out)
        if not burst:
            return
        room = self.slots.room(now)
        if room >= len(burst):
            self._emit(burst, now, out)
            return
        if room > 0:
            self._emit(burst[:room], now, out)
        self._staged.extend(burst[room:])
        while len(self._staged) > STAGED_PACKETS:
            out.refuse(self.config.name, self._staged.popleft(), Drop.TUNNEL_QUEUE_FULL)
        self._ask_for_session(now, out)

    def _fitting(self, burst: Sequence[bytes], out: Effects) -> Sequence[bytes]:
        """The packets that are short enough for the path. The others passed the walk before the path was narrower."""
        mtu_bytes = self.path.mtu_bytes
        if max(map(len, burst)) <= mtu_bytes:
            return burst
        self._refuse((packet for packet in burst if len(packet) > mtu_bytes), Drop.TUNNEL_TOO_BIG, out)
        return [packet for packet in burst if len(packet) <= mtu_bytes]

    def keepalive(self, now: int, out: Effects) -> None:
        """Send an empty packet. Without a session ask for one: the packet that confirms it does the same."""
        if self.slots.room(now) > 0:
            self._emit(_KEEPALIVE, now, out)
        else:
            self._ask_for_session(now, out)

    def _emit(self, packets: Sequence[bytes], now: int, out: Effects) -> None:
        """Seal packets under the current session, which has room."""
        session, endpoint = self.slots.current, self.endpoint
        assert session is not None
        assert endpoint is not None
        first = session.reserve(len(packets))
        cipher = self._common.cipher
        sealed = cipher.seal_burst(session.keys.send, session.remote, first, packets, self.path.mtu_bytes)
        datagrams = out.datagrams
        size = 0
        for packet, datagram in zip(packets, sealed, strict=True):
            datagrams.append(Datagram(endpoint, datagram, outer_tos(packet)))
            size += len(datagram)
        self._sealed(session, size, now, out, wants_answer=packets is not _KEEPALIVE)

    def carry(self, envelopes: Sequence[Envelope], now: int, out: Effects) -> bool:
        """Send envelopes to this peer, their next hop. False where it has no session: one is asked for."""
        session, endpoint = self.slots.current, self.endpoint
        if endpoint is None:
            return False
        if session is None or session.room(now) < len(envelopes):
            self._ask_for_session(now, out)
            return False
        size = 0
        for counter, envelope in enumerate(envelopes, session.reserve(len(envelopes))):
            datagram = envelope.sealed(session.keys.send, session.remote, counter)
            out.datagrams.append(Datagram(endpoint, datagram, envelope.tos))
            size += len(datagram)
        self._sealed(session, size, now, out, wants_answer=True)
        return True

    def _sealed(self, session: Session, size_bytes: int, now: int, out: Effects, *, wants_answer: bool) -> None:
        """Packets were sealed under the current session: account them to the timers."""
        self.tx_bytes += size_bytes
        self._sent(now)
        if wants_answer and self.timers.unanswered == OFF:
            self.timers.unanswered = now + UNANSWERED_NS + self._common.jitter_ns()
        if session.is_due(now):
            self.initiate(now, out)

    def lane(self) -> Lane | None:
        """The present lane. It does not open packets under *next*, because the first data under it changes the
        slots."""
        session, endpoint = self.slots.current, self.endpoint
        if session is None or endpoint is None or endpoint.via:
            return None
        previous = self.slots.previous
        receiving = (session,) if previous is None else (session, previous)
        return Lane(self.config.name, endpoint, self.path.mtu_bytes, session, receiving)

    def lane_sealed(self, size_bytes: int, now: int, out: Effects) -> None:
        """The lane sealed packets under the current session: so many bytes of datagrams."""
        if self.slots.current is None:
            self.tx_bytes += size_bytes
        else:
            self._sealed(self.slots.current, size_bytes, now, out, wants_answer=True)

    def _refuse(self, packets: Iterable[bytes], reason: Drop, out: Effects) -> None:
        for packet in packets:
            out.refuse(self.config.name, packet, reason)

    def _refuse_staged(self, reason: Drop, out: Effects) -> None:
        self._refuse(self._staged, reason, out)
        self._staged.clear()

    def _ask_for_session(self, now: int, out: Effects) -> None:
        """A session is wanted. *next* may be confirmed at any moment: wait 5 s for that before calling the peer."""
        waiting = self.slots.next
        if waiting is not None and now - waiting.created_ns < REKEY_TIMEOUT_NS and self.timers.retransmit == OFF:
            self.handshake.attempts = 0
            self.timers.retransmit = waiting.created_ns + REKEY_TIMEOUT_NS + self._common.jitter_ns()
            return
        self.initiate(now, out)

    # A handshake

    def initiate(self, now: int, out: Effects) -> None:
        """Begin a series of initiations. Nothing happens while one is under way, or while the peer has no endpoint."""
        if self.timers.retransmit != OFF or self.endpoint is None:
            return
        self.handshake.attempts = 0
        due = self.handshake.earliest_ns(now)
        if due > now:
            self.timers.retransmit = due
            return
        self._send_initiation(now, out)

    def _send_initiation(self, now: int, out: Effects) -> None:
        message = self.handshake.initiation(now)
        self._happened(Happening.STAMPED, out)
        self._transmit(message, out)
        self._sent(now)
        self.timers.retransmit = now + REKEY_TIMEOUT_NS + self._common.jitter_ns()

    def consume_initiation(self, called: Called, message: bytes, source: Endpoint, now: int, out: Effects) -> None:
        """An initiation came that names this peer: check the rest of it, and answer."""
        agreed = self.handshake.answer(called, message, now)
        if isinstance(agreed, Drop):
            out.drop(agreed)
            return
        self._happened(Happening.STAMPED, out)
        self._authenticated(source, len(message), now, out)
        self.slots.answer(agreed.keys, agreed.local, agreed.remote, now)
        self.timers.erase = now + ERASE_NS
        self._transmit(agreed.message, out)
        self._sent(now)

    def consume_response(self, message: bytes, source: Endpoint, now: int, out: Effects) -> None:
        """A response to our pending initiation came. Its session may be used at once; the first packet confirms it."""
        agreed: Agreed | None = self.handshake.finish(message)
        if agreed is None:
            out.drop(Drop.TUNNEL_HANDSHAKE)
            return
        self._authenticated(source, len(message), now, out)
        self.slots.answered(agreed.keys, agreed.local, agreed.remote, now)
        self.timers.erase = now + ERASE_NS
        self._session_ready(now, out)
        if not self._send_staged(now, out):
            self._emit(_KEEPALIVE, now, out)

    def consume_cookie(self, message: bytes, now: int, out: Effects) -> None:
        """A cookie for the next handshake message came. Nothing is sent because of it."""
        if not self.handshake.accept_cookie(message, now):
            out.drop(Drop.TUNNEL_COOKIE)

    def _session_ready(self, now: int, out: Effects) -> None:
        """The current session is a new one. The peer hears our prefixes before anything else, or it would refuse the
        packets that wait."""
        self.timers.retransmit = OFF
        if self.has_given_up:
            self._common.is_unjudged = True
        self.has_given_up = False
        self.latest_handshake = now
        self.path.session(now)
        self.timers.path = self.path.due_ns
        self._happened(Happening.SESSION, out)
        self.tell(self.announcing.session_ready(now), now, out)

    def _send_staged(self, now: int, out: Effects) -> bool:
        """Send the packets that waited; False where none did."""
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
        """Authenticated datagrams came under one of our sessions, the last of them from `source`."""
        self._authenticated(source, size_bytes, now, out)
        if session is self.slots.next:
            self.slots.confirm()
            self._session_ready(now, out)
            self._send_staged(now, out)
        current = self.slots.current
        if current is not None and current.is_initiator and now - current.created_ns >= REKEY_WHILE_RECEIVING_NS:
            self.initiate(now, out)
        if has_data and self.timers.keepalive == OFF:
            self.timers.keepalive = now + KEEPALIVE_NS
        self.announcing.data_came(session, now)

    def consume_control(self, plain: bytes, session: Session, now: int, out: Effects) -> None:
        """A control message came under one of our sessions (`tunnel.control`)."""
        message = control.read(plain)
        if message is None:
            out.drop(Drop.TUNNEL_CONTROL)
            return
        before = self.path.mtu_bytes
        self.path.spoken(now)
        if message.kind is ControlKind.PROBE:
            self.tell(ControlMessage(ControlKind.PROBED, message.number), now, out)
        elif message.kind is ControlKind.ANNOUNCE:
            answer = self.announcing.announced(message, session, now)
            if isinstance(answer, Drop):
                out.drop(answer)
            else:
                self.tell(answer, now, out)
        elif message.kind is ControlKind.ANNOUNCED:
            outcome = self.announcing.answered(message, now)
            if isinstance(outcome, Drop):
                out.drop(outcome)
            elif outcome:
                self._happened(Happening.ANSWERED, out)
        elif message.kind is ControlKind.PROBED:
            self.path.answered(message.number, now)
        self._follow_path(before, out)

    def tell(self, message: ControlMessage | None, now: int, out: Effects) -> None:
        """Send a control message. Without a session it is lost, as it might be on the wire."""
        if message is not None and self.slots.room(now) > 0:
            self._emit_control((message,), self.path.mtu_bytes, out)

    def _emit_control(self, messages: Sequence[ControlMessage], padded_to_bytes: int, out: Effects) -> None:
        """Seal control messages. They are no data for the protocol's timers: they have answers and repetitions of their
        own, and a probe may be too long to arrive."""
        session, endpoint = self.slots.current, self.endpoint
        assert session is not None
        assert endpoint is not None
        first = session.reserve(len(messages))
        packets = [message.packed() for message in messages]
        cipher = self._common.cipher
        for datagram in cipher.seal_burst(session.keys.send, session.remote, first, packets, padded_to_bytes):
            out.datagrams.append(Datagram(endpoint, datagram))
            self.tx_bytes += len(datagram)

    def answer_announcement(self, now: int, out: Effects) -> None:
        """Tell the peer the verdicts on its prefixes, after the tunnel has judged them."""
        self.tell(self.announcing.hearing.answer(), now, out)

    def offer(self, now: int, out: Effects) -> None:
        """The operator changed the prefixes that we announce."""
        self.tell(self.announcing.offer_changed(now, can_send=self.slots.room(now) > 0), now, out)

    def _authenticated(self, source: Endpoint, size_bytes: int, now: int, out: Effects) -> None:
        """Something authentic came: the peer is at `source`, unless the operator says that it is behind a relay."""
        self.rx_bytes += size_bytes
        self.timers.unanswered = OFF
        self._restart_persistent(now)
        if self.config.via:
            return
        if source != self.endpoint:
            before = self.path.mtu_bytes
            self._set_endpoint(source, now)
            self._follow_path(before, out)
            self._happened(Happening.MOVED, out)
        self.endpoint = source  # an equal one too: it may carry more, for example our own address of the path

    def _sent(self, now: int) -> None:
        """Something authentic was sent."""
        self.timers.keepalive = OFF
        self._restart_persistent(now)

    def _restart_persistent(self, now: int) -> None:
        if self.config.persistent_keepalive_s:
            self.timers.persistent = now + self.config.persistent_keepalive_s * SECOND_NS

    # The path

    def too_big(self, signal: TooBig, now: int, out: Effects) -> bool:
        """A datagram to our endpoint was too big for its path. False where the signal is not to be believed.

        Our own kernel is believed, and a router that quotes a data message of a living session. Any other signal is
        a hint.
        """
        before = self.path.mtu_bytes
        is_sure = not signal.origin or self.slots.has_sent(signal.quoted, now)
        if is_sure:
            self.path.told(signal.mtu_bytes, now)
        else:
            self.path.hinted(now)
        self._follow_path(before, out)
        return is_sure

    def recheck_limits(self, now: int, out: Effects) -> None:
        """The limits of the path to our endpoint may be others now."""
        before = self.path.mtu_bytes
        self.path.changed(self._common.limits_of(self.endpoint or NOWHERE), now)
        self._follow_path(before, out)

    def _probe(self, now: int, out: Effects) -> None:
        before = self.path.mtu_bytes
        can_probe = self.endpoint is not None and self.slots.room(now) >= MOST_PROBES
        probes = self.path.tick(now, can_probe=can_probe)
        if probes:
            self._emit_control([control.probe(*probe) for probe in probes], 0, out)
        self._follow_path(before, out)

    def _follow_path(self, mtu_before: int, out: Effects) -> None:
        self.timers.path = self.path.due_ns
        if self.path.mtu_bytes != mtu_before:
            self._happened(Happening.MTU, out)

    # Time passes

    def tick(self, now: int, out: Effects) -> None:
        """Fire the timers that are due. Afterwards no deadline lies at or before `now`."""
        timers = self.timers
        if timers.erase <= now:
            timers.erase = OFF
            self.erase()
            self._happened(Happening.ERASED, out)
        if timers.withdraw <= now:
            self.announcing.forget()
        if timers.announce <= now:
            self.tell(self.announcing.repeat(now, can_send=self.slots.room(now) > 0), now, out)
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
        """Repeat the initiation, or give up and return the packets that wait."""
        due = self.handshake.earliest_ns(now)
        if due > now:
            self.timers.retransmit = due
            return
        attempts = self.handshake.attempts
        if attempts < ATTEMPTS:
            if attempts and attempts % ATTEMPTS_IN_VAIN == 0:
                self._happened(Happening.UNANSWERED, out)
            self._send_initiation(now, out)
            return
        self.timers.retransmit = OFF
        self.handshake.drop_pending()
        self.has_given_up = True
        self._common.is_unjudged = True
        self._refuse_staged(Drop.TUNNEL_GAVE_UP, out)
        if self.timers.erase == OFF:
            self.timers.erase = now + ERASE_NS
        self._happened(Happening.GAVE_UP, out)

    def erase(self) -> None:
        """Overwrite the keys of all sessions and of the pending initiation, and forget the peer's prefixes. Packets
        that wait go on waiting for their series."""
        self.announcing.forget()
        self.handshake.drop_pending()
        self.slots.end_all()

    def close(self, out: Effects) -> None:
        """The peer is not configured any more."""
        self.erase()
        self._refuse_staged(Drop.TUNNEL_NO_PEER, out)
        self.timers.stop()
        self.handshake.keys.wipe()

    def status(self, now: int) -> Status:
        """The peer, for people."""
        current = self.slots.current
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
            has_session=self.slots.room(now) > 0,
            has_given_up=self.has_given_up,
            announced=self.announcing.hearing.shown(),
            told=self.announcing.telling.shown(),
            path=self.path.state,
        )
