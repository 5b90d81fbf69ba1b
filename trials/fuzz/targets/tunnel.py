"""Mutated messages of every type into a tunnel, in every state that a handshake and its session can be in.

A round brings two tunnels into a state by honest messages, holds some of them back, fires spoiled ones at one of the
two, and then lets the honest ones through: what they were for must still come about. An attacker is assumed who has
seen all messages, knows the public keys (so mac1 is right where it likes), holds a cookie of its own address, and may
send from anywhere.

Must hold after each hostile message: no exception; no packet, event or datagram comes out of it, but a cookie
reply to its source under load, never larger than what came; one drop is counted; sessions, windows, endpoints, stamps,
counters and deadlines are what they were. Messages that were delivered before are hostile, too: they are recordings.

To add a message type: its authenticated part in `AUTHENTIC`, its fields in `FIELDS`, and a stage that holds one back
(a message sealed under a session belongs beside `up`, as one more of what that stage yields). Envelopes that are
sealed as they should be are the business of `trials.fuzz.targets.relay`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from trials.fuzz.hostile import Broken, Failure, Target, goes_on, mutated
from tunnel.constants import ERASE_NS, REJECT_AFTER_NS
from tunnel.control import ControlKind, ControlMessage
from tunnel.cookies import CookieJar
from tunnel.effects import Effects, Endpoint, Network, PeerConfig, Received
from tunnel.endpoint import Tunnel
from tunnel.messages import MessageKind, kind_of
from tunnel.noise import LocalKeys, RemoteKeys, initiate
from tunnel.peers.peer import STAGED_PACKETS
from tunnel.primitives import BurstCipher, public_key
from tunnel.tai64n import stamp
from wire.drop import Drop
from wire.units import SECOND_NS

WALL_NS = 1_700_000_000 * SECOND_NS
OUR_HOME, THEIR_HOME = Endpoint(b"\xc0\0\2\1", 51820), Endpoint(b"\xc0\0\2\2", 51820)
STRANGERS_HOME = Endpoint(b"\xcb\0\x71\x07", 4000)
INPUTS_A_ROUND = 150
HISTORY = 64
FLOOD = 300
BETRAYALS = 40

# The bytes of a message that its sender must have authenticated. The rest is anybody's: sender indices, mac1, mac2.
AUTHENTIC: dict[MessageKind, slice] = {
    MessageKind.INITIATION: slice(8, 116),
    MessageKind.RESPONSE: slice(8, 60),
    MessageKind.COOKIE_REPLY: slice(8, 64),
    MessageKind.DATA: slice(4, None),
    MessageKind.RELAYED: slice(4, None),
}
# Offset and size of what a mutation replaces as a whole.
FIELDS: dict[MessageKind, list[tuple[int, int]]] = {
    MessageKind.INITIATION: [(4, 4), (8, 32), (40, 48), (88, 28), (116, 16), (132, 16)],
    MessageKind.RESPONSE: [(4, 4), (8, 4), (12, 32), (44, 16), (60, 16), (76, 16)],
    MessageKind.COOKIE_REPLY: [(4, 4), (8, 24), (32, 32)],
    MessageKind.DATA: [(4, 4), (8, 8), (16, 16)],
    MessageKind.RELAYED: [(4, 4), (8, 8), (16, 20), (36, 16), (52, 16)],
}
# Points of low order on Curve25519, and numbers that counters and indices might stumble over.
POINTS = [
    bytes(32),
    b"\1" + bytes(31),
    b"\xec" + b"\xff" * 30 + b"\x7f",
    b"\xed" + b"\xff" * 30 + b"\x7f",
    b"\xff" * 32,
]
NUMBERS = [0, 1, 8127, 8128, 8192, (1 << 32) - 1, (1 << 60), (1 << 64) - (1 << 13) - 1, (1 << 64) - 1]


def packet(mark: int) -> bytes:
    """An inner packet from the other end, as far as the tunnel looks into it."""
    return b"\x45\0\0\x20" + mark.to_bytes(4, "big") + bytes(4) + b"\x0a\0\0\2" + b"\x0a\0\0\1" + bytes(12)


class TunnelRound:
    """Two tunnels with keys of their own. `history`: what was on the wire, between them and in rounds before."""

    def __init__(self, rng: random.Random, history: list[bytes], cipher: BurstCipher | None = None) -> None:
        self.rng = rng
        self.now = 1000 * SECOND_NS
        self.history = history
        self.held: list[bytes] = []
        self.mark = 0
        # Secrets are no choices: who makes the inputs must not make both ends draw the same.
        self.secret = random.Random(rng.getrandbits(32)).randbytes
        ours, theirs = self.secret(32), self.secret(32)
        self.ours = self._tunnel(ours, theirs, THEIR_HOME, cipher)
        self.theirs = self._tunnel(theirs, ours, OUR_HOME, None)
        self.jar = CookieJar(self.ours.public_key)  # the attacker's, for its own address

    def _tunnel(self, key: bytes, other: bytes, home: Endpoint, cipher: BurstCipher | None) -> Tunnel:
        peer = PeerConfig("peer", public_key(other), (Network(0, 0),), home)
        return Tunnel(
            key,
            [peer],
            self.now,
            wall_ns=lambda: WALL_NS + self.now,
            random_bytes=self.secret,
            cipher=cipher,
        )

    # Honest messages

    def _said(self, effects: Effects) -> list[bytes]:
        messages = [datagram.data for datagram in effects.datagrams]
        self.history += messages
        del self.history[:-HISTORY]
        return messages

    def we_say(self) -> list[bytes]:
        """Send a packet; the datagrams that come of it."""
        self.mark += 1
        return self._said(self.ours.send("peer", [packet(self.mark)], self.now))

    def they_say(self) -> list[bytes]:
        """The same from the other side."""
        self.mark += 1
        return self._said(self.theirs.send("peer", [packet(self.mark)], self.now))

    def they_hear(self, *messages: bytes) -> list[bytes]:
        """Messages of ours reach them; what they answer."""
        return self._said(self.theirs.receive([Received(message, OUR_HOME) for message in messages], self.now))

    def we_hear(self, *messages: bytes) -> Effects:
        """Messages of theirs reach us."""
        effects = self.ours.receive([Received(message, THEIR_HOME) for message in messages], self.now)
        self._said(effects)
        return effects

    def join(self) -> None:
        """A session that works both ways, which they asked for."""
        answers = [datagram.data for datagram in self.we_hear(*self.they_say()).datagrams]
        first = self.they_hear(*answers)
        expect(len(self.we_hear(*first).packets) == 1, "the first packet arrives")
        self.they_hear(*self.we_say())

    def calm(self) -> None:
        """Long enough for load to be over, too short for any other timer."""
        self.now += 3 * SECOND_NS

    # Hostile ones

    def fire(self, message: bytes, source: Endpoint) -> None:
        """One hostile message, and all that must hold."""
        before = self.state()
        effects = self.ours.receive([Received(message, source)], self.now)
        if sum(effects.drops.values()) != 1:
            raise Failure(f"drops: {effects.drops}")
        if effects.packets or effects.events or effects.unsent:
            raise Failure(f"something came of it: {effects.packets} {effects.events} {effects.unsent}")
        for endpoint, answer, _ in effects.datagrams:
            if kind_of(answer) is not MessageKind.COOKIE_REPLY or Drop.TUNNEL_COOKIE_SENT not in effects.drops:
                raise Failure(f"an answer: {answer.hex()}")
            if endpoint != source or len(answer) > len(message):
                raise Failure("a cookie reply to somebody else, or larger than what it answers")
            if not self.ours._gauge._until_ns > self.now:
                raise Failure("a cookie reply without load")
        if len(effects.datagrams) > 1:
            raise Failure("two answers")
        if self.state() != before:
            raise Failure("it left a trace")
        for endpoint, answer, _ in effects.datagrams:
            if endpoint == STRANGERS_HOME and kind_of(message) is not None:
                self.jar.accept_reply(answer, self.now)

    def state(self) -> tuple[Any, ...]:
        """Everything of ours that a stranger must not change."""
        indices = self.ours._indices
        windows = {index: (session.counter, session.window.state()) for index, session in indices.sessions.items()}
        return (
            self.ours.status(self.now),
            self.ours.stamps(),
            self.ours.next_deadline(),
            windows,
            set(indices.pending),
        )

    def check_bounds(self) -> None:
        """Memory and timers, whatever came."""
        indices = self.ours._indices
        if len(indices.sessions) > 3 or len(indices.pending) > 1:
            raise Failure(f"{len(indices.sessions)} sessions and {len(indices.pending)} initiations of one peer")
        if self.ours.status(self.now)[0].staged > STAGED_PACKETS:
            raise Failure("the queue is too long")
        due = self.ours.next_deadline()
        if due is not None and not due <= self.now + ERASE_NS:
            raise Failure("a deadline that is never reached")

    def hostile(self) -> bytes:
        """A message that none of the two has sent, or that was delivered before."""
        while True:
            message = self._spoiled()
            if not any(is_same(message, held) for held in self.held):
                return message

    def _spoiled(self) -> bytes:
        rng = self.rng
        if rng.random() < 0.1:
            return self._strangers()
        message = rng.choice(self.held if self.held and rng.random() < 0.6 else self.history or [b"\4" + bytes(31)])
        choice = rng.random()
        if choice < 0.1:
            return message  # a recording, or one of ours sent back
        if choice < 0.4:
            message = mutated(message, rng)
        elif choice < 0.85:
            message = self._field(message)
        else:
            other = rng.choice(self.history)
            at = rng.randrange(min(len(message), len(other)) + 1)
            message = message[:at] + other[at:]
        return self._macs(message) if rng.random() < 0.6 else message

    def _field(self, message: bytes) -> bytes:
        """One field replaced by what might be mistaken for it."""
        kind = kind_of(message)
        if kind is None:
            return message
        rng = self.rng
        at, size = rng.choice(FIELDS[kind])
        indices = self.ours._indices
        choices = [rng.randbytes(size), bytes(size), rng.choice(self.history)[at : at + size].ljust(size, b"\0")]
        if size <= 8:
            known = [*indices.sessions, *indices.pending] if size == 4 else []
            choices.append(rng.choice([*known, *NUMBERS]).to_bytes(8, "little")[:size])
        elif size == 32:
            choices.append(rng.choice(POINTS))
        return message[:at] + rng.choice(choices) + message[at + size :]

    def _macs(self, message: bytes) -> bytes:
        """mac1 put right, as anybody can who knows our public key; mac2 too, where the stranger holds a cookie."""
        if kind_of(message) not in (MessageKind.INITIATION, MessageKind.RESPONSE):
            return message
        return self.jar.finish(message[:-32], self.now)

    def _strangers(self) -> bytes:
        """A perfect initiation of somebody whom we do not know."""
        local = LocalKeys(self.secret(32))
        remote = RemoteKeys(local, self.ours.public_key)
        body, _ = initiate(local, remote, self.secret(32), stamp(WALL_NS + self.now), self.rng.getrandbits(32))
        return self.jar.finish(body, self.now)


def is_same(message: bytes, held: bytes) -> bool:
    """True where a message is an honest one in all that is authenticated."""
    kind = kind_of(message)
    return kind is not None and kind is kind_of(held) and message[AUTHENTIC[kind]] == held[AUTHENTIC[kind]]


def expect(holds: bool, what: str) -> None:
    """An honest message did not do what it is for."""
    if not holds:
        raise Failure(f"not any more: {what}")


# Stages: bring both into a state, yield what is held back while hostile messages come, let it through and look


Stage = Callable[[TunnelRound], Iterator[list[bytes]]]


def idle(round_: TunnelRound) -> Iterator[list[bytes]]:
    """Nobody has called yet; their call is on its way."""
    call = round_.they_say()
    yield call
    answers = [datagram.data for datagram in round_.we_hear(*call).datagrams]
    expect([kind_of(answer) for answer in answers] == [MessageKind.RESPONSE], "an initiation is answered")
    expect(len(round_.we_hear(*round_.they_hear(*answers)).packets) == 1, "its first packet arrives")


def pending(round_: TunnelRound) -> Iterator[list[bytes]]:
    """We have called; their answer is on its way."""
    answer = round_.they_hear(*round_.we_say())
    yield answer
    effects = round_.we_hear(*answer)
    expect(
        [kind_of(datagram.data) for datagram in effects.datagrams] == [MessageKind.DATA], "a response makes a session"
    )


def unconfirmed(round_: TunnelRound) -> Iterator[list[bytes]]:
    """We have answered; the first packet under the new session is on its way."""
    answers = [datagram.data for datagram in round_.we_hear(*round_.they_say()).datagrams]
    first = round_.they_hear(*answers)
    yield first
    expect(len(round_.we_hear(*first).packets) == 1, "the first packet arrives")


def up(round_: TunnelRound) -> Iterator[list[bytes]]:
    """A session works; packets of it come late and out of order."""
    round_.join()
    late = [message for _ in range(5) for message in round_.they_say()]
    yield late
    round_.rng.shuffle(late)
    expect(len(round_.we_hear(*late).packets) == 5, "late packets arrive")


def renewed(round_: TunnelRound) -> Iterator[list[bytes]]:
    """A second session is there beside the first; packets of both are on their way."""
    round_.join()
    late = round_.they_say()
    round_.now += 121 * SECOND_NS
    said = round_.they_say()
    answers = [datagram.data for datagram in round_.we_hear(*said).datagrams]
    fresh = round_.they_hear(*answers) + round_.they_say()
    yield late + fresh
    expect(len(round_.we_hear(*fresh).packets) >= 1, "packets of the new session arrive")
    expect(len(round_.we_hear(*late).packets) == 1, "so do those of the old one")


def betrayed(round_: TunnelRound) -> Iterator[list[bytes]]:
    """The peer itself is hostile: what it seals is any bytes, spoiled packets and control messages among them."""
    round_.join()
    rng = round_.rng
    for _ in range(BETRAYALS):
        kind = rng.choice(list(ControlKind))
        control = ControlMessage(kind, rng.getrandbits(32), rng.randbytes(rng.choice((0, 1, 5, 50, 1400)))).packed()
        plain = mutated(rng.choice((packet(0), packet(0), control, control, rng.randbytes(40))), rng) or b"\0"
        for datagram in round_.theirs.send("peer", [plain], round_.now).datagrams:
            round_.history.append(datagram.data)
            effects = round_.ours.receive([Received(datagram.data, THEIR_HOME, rng.randrange(4))], round_.now)
            if len(effects.packets) > 1 or any(len(inner) > len(plain) + 15 for _, inner in effects.packets):
                raise Failure(f"more came out than went in: {plain.hex()}")
            if any(inner[0] >> 4 != 4 for _, inner in effects.packets):
                raise Failure(f"no packet of IPv4: {plain.hex()}")
            if sum(len(answer.data) for answer in effects.datagrams) > len(datagram.data):
                raise Failure(f"an answer larger than the question: {plain.hex()}")
        round_.check_bounds()
    late = round_.they_say()
    yield late
    expect(len(round_.we_hear(*late).packets) == 1, "honest packets of it arrive")


def expired(round_: TunnelRound) -> Iterator[list[bytes]]:
    """The session is over, its keys are still there."""
    round_.join()
    late = round_.they_say()
    round_.now += REJECT_AFTER_NS
    yield late
    expect(not round_.we_hear(*late).packets, "a packet of a session that is over is refused")


def erased(round_: TunnelRound) -> Iterator[list[bytes]]:
    """All keys are gone."""
    round_.join()
    late = round_.they_say()
    round_.now += ERASE_NS
    while (due := round_.ours.next_deadline()) is not None and due <= round_.now:
        round_.ours.tick(round_.now)
    yield late
    expect(not round_.we_hear(*late).packets, "a packet of a session that was erased is refused")


def cookie(round_: TunnelRound) -> Iterator[list[bytes]]:
    """We have called somebody under load; the cookie reply is on its way."""
    (call,) = round_.we_say()
    reply = round_.theirs._desk.reply(call, OUR_HOME, round_.now)
    yield [reply]
    expect(not round_.we_hear(reply).datagrams, "a cookie causes no message")
    round_.now += 6 * SECOND_NS
    again = [datagram.data for datagram in round_.ours.tick(round_.now).datagrams]
    expect([kind_of(message) for message in again] == [MessageKind.INITIATION], "the call is repeated")
    expect(any(again[0][-16:]), "with mac2")


def load(round_: TunnelRound) -> Iterator[list[bytes]]:
    """A session works, and a flood of initiations with a right mac1 goes on."""
    round_.join()
    late = round_.they_say()
    for _ in range(FLOOD):
        round_.ours.receive(
            [Received(round_._macs(b"\1\0\0\0" + round_.rng.randbytes(144)), STRANGERS_HOME)], round_.now
        )
    yield late
    expect(len(round_.we_hear(*late).packets) == 1, "sessions do not care for load")


STAGES: tuple[Stage, ...] = (idle, pending, unconfirmed, up, renewed, betrayed, expired, erased, cookie, load)


def one_round(rng: random.Random, history: list[bytes], cipher: BurstCipher | None, most: int) -> int:
    """One stage and what is fired at it until the generator is spent; the number of inputs."""
    stage = rng.choice(STAGES)
    message = b""
    number = 0
    try:
        round_ = TunnelRound(rng, history, cipher)
        honest = stage(round_)
        round_.held = next(honest)
        while goes_on(rng, number, most):
            number += 1
            round_.now += rng.choice((0, 1000, 1_000_000))
            message = round_.hostile()
            round_.fire(message, rng.choice((STRANGERS_HOME, THEIR_HOME, Endpoint(rng.randbytes(4), 1))))
        round_.check_bounds()
        round_.calm()
        message = b""
        for _ in honest:
            raise AssertionError("a stage yields once")
        round_.check_bounds()
    except Exception as error:  # whatever it is, the message that did it is told
        raise Broken(f"input {number}, stage {stage.__name__}: {message.hex() or 'an honest one'}") from error
    return number


def run(seconds: float, seed: int, most: int = 1 << 62, cipher: BurstCipher | None = None) -> int:
    """Rounds until the time is over, at most `most` inputs; the number of inputs. `Broken` where something did."""
    rng = random.Random(seed)
    end = time.monotonic() + seconds
    history: list[bytes] = []
    number = 0
    while number < most:
        number += one_round(rng, history, cipher, INPUTS_A_ROUND)
        if time.monotonic() > end:
            break
    return number


def episode(rng: random.Random, most: int) -> int:
    """Rounds that know of each other's messages."""
    history: list[bytes] = []
    number = 0
    while goes_on(rng, number, most):
        number += one_round(rng, history, None, min(INPUTS_A_ROUND, most - number))
    return number


TARGET = Target("tunnel", episode)
