"""Hostile envelopes into a relay and into the nodes behind it, spoiled on the way and sealed by peers up to no good.

Alice and Bob reach each other through the relay; Mallory is a peer of the relay's as well, and each of the three, the
relay too, may seal an envelope with any address around any message. In between time passes and Alice and Bob send each
other packets. Must hold after each input:

- no exception; a node sends no more datagrams and no more bytes than came, but one initiation of its own in five
  seconds to a neighbour that has no session;
- what leaves the relay is an envelope with one hop less, to the destination in it, around the same message;
- nothing that a spoiled or repeated envelope holds goes any further, and no packet comes out that Alice or Bob did not
  send, none of them twice;
- endpoints of nodes behind the relay stay what they are, and nothing waits at the relay;
- at the end Alice and Bob still reach each other.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Final

from trials.fuzz import hostile
from trials.fuzz.hostile import Broken, Failure, Target, goes_on, mutated
from tunnel.effects import Datagram, Effects, Endpoint, Network, PeerConfig, Received, Role
from tunnel.endpoint import Tunnel
from tunnel.envelope import HOPS, Envelope, address_in, named, node_id, read
from tunnel.messages import ENVELOPE_BYTES, MessageKind, kind_of
from tunnel.primitives import public_key
from wire.units import SECOND_NS

NAMES: Final = ("alice", "bob", "mallory", "relay")
KEYS: Final = {name: bytes([number]) * 32 for number, name in enumerate(NAMES, start=1)}
HOMES: Final = {name: Endpoint(bytes((192, 0, 2, number)), 51820) for number, name in enumerate(NAMES, start=1)}
IDS: Final = [node_id(name) for name in NAMES] + [bytes(8), node_id("nobody")]
OTHER: Final = {"alice": "bob", "bob": "alice"}
WALL_NS: Final = 1_700_000_000 * SECOND_NS
INPUTS_A_ROUND: Final = 400
HISTORY: Final = 64


def packet(mark: int) -> bytes:
    """An inner packet that is one of its kind."""
    return b"\x45\0\0\x20" + mark.to_bytes(4, "big") + bytes(4) + b"\x0a\0\0\1\x0a\0\0\2" + bytes(12)


class RelayRound:
    """The four nodes, joined by a wire that loses nothing. `history`: envelopes by the node that they came to."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = 1000 * SECOND_NS
        self.history: dict[str, deque[bytes]] = {name: deque(maxlen=HISTORY) for name in NAMES}
        self.marks = 0
        self.under_way: set[bytes] = set()
        everything = (Network(0, 0),)
        secret = random.Random(rng.getrandbits(32)).randbytes  # no choice of who makes the inputs
        self.nodes: dict[str, Tunnel] = {}
        for name in NAMES:
            peers = [
                PeerConfig(other, public_key(KEYS[other]), everything, HOMES[other])
                for other in NAMES
                if other != name and "relay" in (name, other)
            ]
            if name in OTHER:
                other = OTHER[name]
                peers.append(PeerConfig(other, public_key(KEYS[other]), everything, via="relay"))
            self.nodes[name] = Tunnel(
                KEYS[name],
                peers,
                self.now,
                wall_ns=lambda: WALL_NS + self.now,
                random_bytes=secret,
                role=Role(name),
            )
        for name in ("alice", "bob", "mallory"):
            self.deliver(name, self.nodes[name].call("relay", self.now))
        for name in OTHER:
            self.talk(name)

    def deliver(self, by: str, effects: Effects) -> None:
        """Carry datagrams to their ends, and what they cause, until nobody says anything any more."""
        at = {home: name for name, home in HOMES.items()}
        waiting = deque([(by, effects)])
        while waiting:
            sender, done = waiting.popleft()
            self.look_at_packets(sender, done)
            for one in done.datagrams:
                to = at[one.endpoint]
                self.history[to].append(one.data)
                waiting.append((to, self.nodes[to].receive([Received(one.data, HOMES[sender])], self.now)))

    def look_at_packets(self, at: str, effects: Effects) -> None:
        """Only what was sent, and once."""
        for name, got in effects.packets:
            if name != OTHER.get(at) or got not in self.under_way:
                raise Failure(f"{at} got a packet of {name} that was not sent, or is there already: {got.hex()}")
            self.under_way.discard(got)

    def talk(self, name: str) -> None:
        """A packet from Alice to Bob or back, which must arrive."""
        self.marks += 1
        sent = packet(self.marks)
        self.under_way.add(sent)
        self.deliver(name, self.nodes[name].send(OTHER[name], [sent], self.now))

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += round(seconds * SECOND_NS)
        for name, node in self.nodes.items():
            effects = node.tick(self.now)
            due = node.next_deadline()
            if due is not None and due <= self.now:
                raise Failure(f"a timer of {name} does not move on")
            self.deliver(name, effects)

    def sealed(self, by: str, to: str) -> bytes | None:
        """An envelope as `by` may seal it for a neighbour; None while they have no session."""
        rng = self.rng
        old = [one[ENVELOPE_BYTES:] for one in self.history[rng.choice(NAMES)] if kind_of(one) is MessageKind.RELAYED]
        kind = rng.randrange(4)
        if kind == 0 and old:
            message = rng.choice(old)
        elif kind == 1 and old:
            message = mutated(rng.choice(old), rng)
        elif kind == 2 and self.history[to]:
            message = rng.choice(self.history[to])  # of a direct session, or another envelope
        else:
            message = bytes([rng.randrange(7), 0, 0, 0]) + rng.randbytes(
                rng.choice((28, 60, 88, 144, rng.randrange(1500)))
            )
        envelope = Envelope(rng.choice((0, 1, HOPS, HOPS + 1, 255)), rng.choice(IDS), rng.choice(IDS), message)
        out = Effects()
        if not self.nodes[by]._by_name[to].carry([envelope], self.now, out):
            return None
        return next(one.data for one in out.datagrams if kind_of(one.data) is not MessageKind.INITIATION)

    def attack(self) -> tuple[str, bytes, Endpoint]:
        """Where the next input goes, what it is, and where it seems to come from."""
        rng = self.rng
        to = rng.choice(("relay", "relay", "alice", "bob"))
        source = rng.choice([*HOMES.values(), Endpoint(b"\xcb\0\x71\x07", 4000)])
        datagram = None
        if rng.random() < 0.6:
            by = rng.choice([name for name in NAMES if name != "relay"]) if to == "relay" else "relay"
            datagram = self.sealed(by, to)
            source = HOMES[by]
        if datagram is None:
            seen = self.history[to]
            datagram = (
                rng.choice(seen) if seen and rng.random() < 0.8 else b"\5\0\0\0" + rng.randbytes(rng.randrange(300))
            )
        return to, mutated(datagram, rng) if rng.random() < 0.4 else datagram, source

    def fire(self, to: str, datagram: bytes, source: Endpoint) -> None:
        """One input, and all that must hold after it."""
        effects = self.nodes[to].receive([Received(datagram, source)], self.now)
        self.look_at_packets(to, effects)
        passed = [one for one in effects.datagrams if kind_of(one.data) is MessageKind.RELAYED]
        more = [one.data for one in effects.datagrams if kind_of(one.data) is MessageKind.INITIATION]
        size = sum(len(one.data) for one in effects.datagrams) - sum(map(len, more))
        if len(more) > 1 or len(effects.datagrams) - len(more) > 1 or size > len(datagram):
            raise Failure(f"{len(datagram)} bytes became {len(effects.datagrams)} datagrams, {size} bytes")
        if to == "relay":
            for one in passed:
                self.look_at_passed(datagram, one.data, one.endpoint)
            if self.nodes["relay"]._relaying._held:
                raise Failure("something waits at the relay")
        for name in OTHER:
            for status in self.nodes[name].status(self.now):
                fixed = Endpoint(node_id(status.name), 0, "relay")
                if status.name == OTHER[name] and status.endpoint != fixed:
                    raise Failure(f"{status.name} has moved to {status.endpoint}")
        for one in effects.datagrams:  # answers go their way
            if one not in passed or to != "relay":
                self.deliver(to, _only(one.endpoint, one.data))

    def look_at_passed(self, came: bytes, went: bytes, to: Endpoint) -> None:
        """The relay changed the address of an envelope by a hop, and nothing else."""
        receiver, counter = named(went)
        for name in NAMES:
            session = self.nodes[name]._indices.sessions.get(receiver)
            address = None if session is None else address_in(went, session.keys.receive, counter)
            if address is None:
                continue
            found = read(address, went)
            if found is None or HOMES[name] != to or node_id(name) != found.destination or found.hops >= HOPS:
                raise Failure(f"passed on to {name}: {found}")
            if went[ENVELOPE_BYTES:] != came[ENVELOPE_BYTES:] or len(went) != len(came):
                raise Failure("the message was changed by the relay")
            return
        raise Failure("an envelope that nobody can open was passed on")


def _only(endpoint: Endpoint, data: bytes) -> Effects:
    out = Effects()
    out.datagrams.append(Datagram(endpoint, data))
    return out


def one_round(rng: random.Random, most: int) -> int:
    """Four nodes and what comes at them until the generator is spent; the number of inputs."""
    round_ = RelayRound(rng)
    to, datagram = "relay", b""
    number = 0
    try:
        while goes_on(rng, number, most):
            number += 1
            to, datagram, source = round_.attack()
            round_.fire(to, datagram, source)
            if rng.random() < 0.1:
                round_.wait(rng.choice((0.02, 1, 6, 30, 130, 200)))
            if rng.random() < 0.2:
                round_.talk(rng.choice(sorted(OTHER)))
        round_.wait(30)
        round_.wait(30)
        for name in OTHER:
            round_.under_way.clear()
            round_.talk(name)
            round_.wait(6)
            if round_.under_way:
                raise Failure(f"what {name} sends does not arrive any more")
    except Exception as error:  # whatever it is, the input that did it is told
        raise Broken(f"input {number}, to {to}: {datagram.hex()}") from error
    return number


def run(seconds: float, seed: int, most: int = 1 << 62) -> int:
    """Rounds until the time is over, at most `most` inputs; their number. `Broken` where something did."""
    return hostile.run(TARGET, seconds, seed, most)


def episode(rng: random.Random, most: int) -> int:
    """Rounds, each with nodes of its own."""
    number = 0
    while goes_on(rng, number, most):
        number += one_round(rng, min(INPUTS_A_ROUND, most - number))
    return number


TARGET = Target("relay", episode)
