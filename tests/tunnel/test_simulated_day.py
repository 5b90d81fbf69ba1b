"""A day of two peers under the virtual clock, with every packet's fate on record.

The wire loses, repeats and reorders; both clocks are set forth and back by hours; either side starts anew, one of them
moves. Afterwards each plaintext must have had exactly one of the fates that a tunnel may give it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from tests.tunnel.tunnel_world import DELAY_NS, HOMES, KEYS, WALL_NS, Node, World, inner, peer_of
from tunnel.constants import REJECT_AFTER_NS
from tunnel.effects import Effects, Endpoint, PeerConfig, Received, Stamps
from tunnel.endpoint import Tunnel
from tunnel.messages import MessageKind, kind_of
from tunnel.peers.peer import STAGED_PACKETS
from tunnel.primitives import Cipher, TransportKey
from wire.drop import Drop
from wire.units import SECOND_NS

DAY_S = 86_400
BURST = 64  # packets that leave at once, and so the most that one may overtake
SPREAD_NS = 64_000_000
LOST = 0.05
REPEATED = 0.03
# A recording comes back long after: within the life of its session, and beyond.
LATE_NS = (1_000_000, SECOND_NS, 60 * SECOND_NS, 200 * SECOND_NS)
QUIET_S = 700.0  # longer than any timer

_Key = bytes


class Nonces:
    """The cipher of one process, with a note of each nonce that it seals under, kept beyond the process's end."""

    def __init__(self, day: Day) -> None:
        self._day = day
        self._cipher = Cipher()

    def seal_burst(
        self, key: TransportKey, receiver: int, first: int, packets: Sequence[bytes], mtu_bytes: int
    ) -> list[bytes]:
        sealed = self._cipher.seal_burst(key, receiver, first, packets, mtu_bytes)
        self._day.sealed(bytes(key._secret), first, packets, sealed)
        return sealed

    def open_burst(self, jobs: Sequence[tuple[TransportKey, bytes]]) -> list[bytes | None]:
        return self._cipher.open_burst(jobs)


class Day(World):
    """A world that knows what became of every plaintext, by the datagram it left in."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.wall = dict.fromkeys(KEYS, WALL_NS)
        self.peers = {"alice": peer_of("bob"), "bob": peer_of("alice")}
        self.restarted: dict[str, int] = {}
        self.incidents: Counter[int] = Counter()
        self.mark = 0
        self.sent: dict[bytes, str] = {}
        self.carried_by: dict[bytes, bytes] = {}  # the datagram in which a plaintext left
        self.nonces: set[tuple[_Key, int]] = set()
        self.first_use: dict[_Key, int] = {}
        self.key_of: dict[bytes, tuple[_Key, int]] = {}  # of a datagram: its key, and when it was sealed
        self.outcomes: dict[bytes, list[str]] = {}  # of a datagram: one for each copy that came to its end
        self.arrived: Counter[bytes] = Counter()
        self.lost_in_queue: set[bytes] = set()
        self.most = Counter[str]()
        self.fate = self.bad_wire

    # The world's own steps, with a note of them

    def add(
        self, name: str, *peers: PeerConfig, stamps: dict[bytes, Stamps] | None = None, mtu_bytes: int = 1420
    ) -> Node:
        tunnel = Tunnel(
            KEYS[name],
            peers,
            self.now,
            wall_ns=lambda: self.wall[name] + self.now,
            random_bytes=self.rng.randbytes,
            mtu_bytes=mtu_bytes,
            stamps=stamps,
            cipher=Nonces(self),
        )
        node = self.nodes[name] = Node(name, tunnel, HOMES[name])
        self.at[node.home] = node
        return node

    def sealed(self, key: _Key, first: int, packets: Sequence[bytes], datagrams: list[bytes]) -> None:
        self.first_use.setdefault(key, self.now)
        for number, (packet, datagram) in enumerate(zip(packets, datagrams, strict=True), start=first):
            assert (key, number) not in self.nonces, "a nonce twice"
            self.nonces.add((key, number))
            if packet in self.sent:
                assert packet not in self.carried_by, "sealed twice"
                self.carried_by[packet] = datagram
                self.key_of[datagram] = key, self.now

    def bad_wire(self, datagram: bytes) -> list[int]:
        if self.rng.random() < LOST:
            self.end(datagram, "lost")
            return []
        delays = [DELAY_NS + self.rng.randrange(SPREAD_NS)]
        if self.rng.random() < REPEATED:
            delays.append(delays[0] + self.rng.choice(LATE_NS))
        return delays

    def end(self, datagram: bytes, outcome: str) -> None:
        if datagram in self.key_of:
            self.outcomes.setdefault(datagram, []).append(outcome)

    def deliver(self, to: Endpoint, source: Endpoint, datagram: bytes) -> None:
        node = self.at.get(to)
        if node is None:
            self.end(datagram, "nobody there")
            return
        effects = self.carry(node, node.tunnel.receive([Received(datagram, source)], self.now))
        if kind_of(datagram) is not MessageKind.DATA:
            return
        for _, packet in effects.packets:
            self.arrived[packet] += 1
            assert self.carried_by[packet] == datagram
        (reason,) = effects.drops or ["taken"]
        if datagram in self.key_of and reason != "taken" and not self.outcomes.get(datagram):
            self.justify(node, datagram, Drop(reason))
        self.end(datagram, str(reason))

    def justify(self, node: Node, datagram: bytes, reason: Drop) -> None:
        """A copy that nothing came before may be refused for these reasons alone."""
        key, sealed_ns = self.key_of[datagram]
        if reason is Drop.TUNNEL_UNKNOWN_INDEX:
            since = self.now - self.restarted.get(node.name, -DAY_S * SECOND_NS)
            assert since < REJECT_AFTER_NS + SECOND_NS, "a session is unknown to a peer that never started anew"
        else:
            assert reason is Drop.TUNNEL_EXPIRED
            age = sealed_ns - self.first_use[key]
            assert age > REJECT_AFTER_NS - SECOND_NS, "a session is over for one side long before the other"

    def carry(self, node: Node, effects: Effects) -> Effects:
        super().carry(node, effects)
        indices = node.tunnel._indices
        for name, size in (("sessions", len(indices.sessions)), ("pending", len(indices.pending))):
            self.most[name] = max(self.most[name], size)
        self.most["staged"] = max(self.most["staged"], node.tunnel.status(self.now)[0].staged)
        return effects

    # What happens in a day

    def speak(self, node: Node, packets: int) -> None:
        """A burst of packets of one node to the other."""
        other = "bob" if node.name == "alice" else "alice"
        burst = []
        for _ in range(packets):
            self.mark += 1
            burst.append(inner(self.rng.choice((30, 64, 576)), mark=self.mark))
            self.sent[burst[-1]] = node.name
        self.send(node, other, *burst)

    def start_anew(self, node: Node, *peers: PeerConfig) -> None:
        staged = node.tunnel.status(self.now)[0].staged
        refused = {unsent.packet for unsent in node.unsent}
        waiting = {
            packet
            for packet, by in self.sent.items()
            if by == node.name and packet not in self.carried_by and packet not in refused
        } - self.lost_in_queue
        assert len(waiting) == staged
        self.lost_in_queue |= waiting
        self.restarted[node.name] = self.now
        self.restart(node, *peers)

    def phase(self, speakers: list[Node]) -> None:
        """Some time of one character: silence, a trickle, or bursts, from one side or both."""
        kind = self.rng.choice(("silence", "trickle", "bursts", "bursts"))
        if kind == "silence":
            self.pass_by(self.rng.choice((60, 200, 600, 3600, 5400)))
        elif kind == "trickle":
            pause = self.rng.choice((0.5, 5, 9, 12, 50))
            for _ in range(self.rng.randrange(20, 80)):
                self.speak(self.rng.choice(speakers), 1)
                self.pass_by(pause * self.rng.uniform(0.5, 1.5))
        else:
            for _ in range(self.rng.randrange(10, 60)):
                self.speak(self.rng.choice(speakers), self.rng.randrange(1, BURST + 1))
                self.pass_by(self.rng.choice((0.01, 0.08, 0.08, 1.0, 20.0)))

    def pass_by(self, seconds: float) -> None:
        """Time passes, and once in a while something happens in the middle of it."""
        if self.rng.random() < 0.02:
            before = self.rng.choice((0.0, 0.03, seconds * self.rng.random()))
            self.run(before)
            self.incident()
            seconds = max(seconds - before, 0.0)
        self.run(seconds)

    def incident(self) -> None:
        alice, bob = self.nodes["alice"], self.nodes["bob"]
        kind = self.rng.randrange(5)
        self.incidents[kind] += 1
        if kind == 0:
            self.wall[self.rng.choice(("alice", "bob"))] += self.rng.choice((-7, -3, -1, 1, 5)) * 3600 * SECOND_NS
        elif kind == 1:
            self.start_anew(alice, self.peers["alice"])
        elif kind == 2:
            self.start_anew(bob, self.peers["bob"])
        elif kind == 3:
            self.roam(bob, f"203.0.113.{self.rng.randrange(256)}", self.rng.randrange(1024, 65536))
        else:
            self.peers["bob"] = peer_of("alice", persistent_keepalive_s=self.rng.choice((0, 25)))
            self.carry(bob, bob.tunnel.set_peers([self.peers["bob"]], self.now))


def live(seed: int) -> tuple[Day, Node, Node]:
    """One day; then the wire is quiet for as long as anything may last."""
    day = Day(seed)
    alice, bob = day.add("alice", day.peers["alice"]), day.add("bob", day.peers["bob"])
    while day.seconds < DAY_S:
        day.phase(day.rng.choice(([alice], [bob], [alice, bob], [alice, bob])))
    day.carry(bob, bob.tunnel.set_peers([peer_of("alice")], day.now))
    day.run(QUIET_S)
    return day, alice, bob


@pytest.mark.parametrize("seed", [1, 2])
def test_a_day_loses_nothing_but_what_the_wire_lost_and_repeats_nothing(seed: int) -> None:
    """W20, W5: no counter comes twice under one key, and stamps that survive restarts keep handshakes going."""
    day, alice, bob = live(seed)
    refused = Counter(unsent.packet for node in (alice, bob) for unsent in node.unsent)
    ends: Counter[str] = Counter()
    for packet in day.sent:
        fates = [packet in refused, packet in day.lost_in_queue, packet in day.carried_by]
        assert sum(fates) == 1, "a packet has one fate"
        if packet not in day.carried_by:
            assert day.arrived[packet] == 0
            ends["refused" if fates[0] else "in the queue of a process that ended"] += 1
            continue
        outcomes = day.outcomes[day.carried_by[packet]]
        assert day.arrived[packet] == outcomes.count("taken") <= 1
        ends["arrived" if "taken" in outcomes else outcomes[0]] += 1
    assert set(refused.values()) <= {1}
    assert sum(ends.values()) == len(day.sent)
    assert not day.arrived.keys() - day.sent.keys()
    reasons = Counter(unsent.reason for node in (alice, bob) for unsent in node.unsent)
    assert reasons.keys() <= {Drop.TUNNEL_GAVE_UP, Drop.TUNNEL_QUEUE_FULL}
    assert Drop.TUNNEL_AUTHENTICATION not in alice.drops + bob.drops

    # The day had what it should have, and the wire took no more than its share.
    assert len(day.sent) > 20_000
    assert len(day.incidents) == 5
    assert 0.03 * len(day.sent) < ends["lost"] < 0.07 * len(day.sent)
    assert ends["arrived"] > 0.8 * len(day.sent)
    assert min(len(World.sent(day, name, MessageKind.INITIATION)) for name in ("alice", "bob")) > 10
    assert (alice.drops + bob.drops)[Drop.TUNNEL_REPLAY] > 20

    # Nothing is left, and nothing ever grew.
    assert day.most["sessions"] <= 3
    assert day.most["pending"] <= 1
    assert day.most["staged"] <= STAGED_PACKETS
    for node in (alice, bob):
        assert not node.tunnel._indices.sessions
        assert not node.tunnel._indices.pending
        assert node.tunnel.next_deadline() is None
