"""Two tunnels over a bad wire, hours of a virtual clock: what it did not lose arrives, and no nonce comes twice."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunnel_world import DELAY_NS, Fate, Node, World, connected, inner, peer_of

from tunnel.effects import Received
from tunnel.messages import MessageKind, kind_of
from tunnel.primitives import Cipher, TransportKey
from wire.drop import Drop
from wire.units import SECOND_NS


class Witness(Cipher):
    """Seals, and writes down under which key and nonce, and what the datagram holds."""

    def __init__(self, nonces: set[tuple[bytes, int]], holds: dict[bytes, bytes]) -> None:
        super().__init__()
        self.nonces = nonces
        self.holds = holds

    def seal_burst(
        self, key: TransportKey, receiver: int, first: int, packets: Sequence[bytes], mtu_bytes: int
    ) -> list[bytes]:
        secret = bytes(key._secret)
        sealed = super().seal_burst(key, receiver, first, packets, mtu_bytes)
        for number, (packet, datagram) in enumerate(zip(packets, sealed, strict=True)):
            assert (secret, first + number) not in self.nonces, "a nonce came twice"
            self.nonces.add((secret, first + number))
            self.holds[datagram] = packet
        return sealed


class Hour:
    """Both ends send now and then; every packet is one of a kind and its way is written down."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World(seed)
        self.nonces: set[tuple[bytes, int]] = set()
        self.holds: dict[bytes, bytes] = {}
        self.alice = self.world.add("alice", peer_of("bob"))
        self.bob = self.world.add("bob", peer_of("alice"))
        self.watch()
        self.sent: dict[str, list[bytes]] = {"alice": [], "bob": []}
        self.number = 0

    def watch(self) -> None:
        for node in (self.alice, self.bob):
            node.tunnel._common.cipher = Witness(self.nonces, self.holds)

    def send(self, node: Node, count: int) -> None:
        other = "bob" if node is self.alice else "alice"
        packets = []
        for _ in range(count):
            self.number += 1
            packets.append(inner(self.rng.randrange(20, 200), mark=self.number))
        self.sent[node.name] += packets
        self.world.send(node, other, *packets)

    def restart(self, node: Node) -> None:
        self.world.restart(node, peer_of("bob" if node is self.alice else "alice"))
        self.watch()

    def missing(self, receiver: Node, sender: Node) -> set[bytes]:
        """The packets that were sent and did not arrive; nothing arrived twice, or was never sent."""
        arrived = Counter(packet for _, packet in receiver.packets)
        assert set(arrived.values()) <= {1}
        sent = set(self.sent[sender.name])
        assert arrived.keys() <= sent
        return sent - arrived.keys()


def bad_wire(rng: random.Random, *, loss: float = 0.05, twice: float = 0.03, spread_ns: int = 0) -> Fate:
    def fate(datagram: bytes) -> list[int]:
        if rng.random() < loss:
            return []
        copies = 2 if rng.random() < twice else 1
        return [DELAY_NS + rng.randrange(spread_ns + 1) for _ in range(copies)]

    return fate


@pytest.mark.parametrize("spread_ns", [0, 40_000_000])
def test_w17_w20_hours_with_loss_duplicates_and_reordering_lose_only_what_the_wire_lost(spread_ns: int) -> None:
    hour = Hour(7)
    hour.world.fate = bad_wire(hour.rng, spread_ns=spread_ns)
    for _ in range(2500):
        hour.send(hour.rng.choice((hour.alice, hour.bob)), hour.rng.choice((1, 1, 3, 20)))
        hour.world.run(hour.rng.choice((0.001, 0.5, 2.0, 6.0)))
    hour.world.run(30)
    on_the_wire = {hour.holds[datagram] for datagram in hour.world.lost if datagram in hour.holds}
    for receiver, sender in ((hour.alice, hour.bob), (hour.bob, hour.alice)):
        told = {unsent.packet for unsent in sender.unsent}
        assert {unsent.reason for unsent in sender.unsent} <= {Drop.TUNNEL_QUEUE_FULL}
        assert hour.missing(receiver, sender) <= on_the_wire | told
        # Duplicates of data and of handshake messages, late ones of series that are over: nothing else was dropped.
        assert set(receiver.drops) - {Drop.TUNNEL_QUEUE_FULL} <= {
            Drop.TUNNEL_REPLAY,
            Drop.TUNNEL_OLD_TIMESTAMP,
            Drop.TUNNEL_TOO_SOON,
            Drop.TUNNEL_UNKNOWN_INDEX,
        }
    assert hour.world.seconds > 3600
    assert len(hour.world.sent("alice", MessageKind.RESPONSE) + hour.world.sent("bob", MessageKind.RESPONSE)) > 30


def test_packets_stay_in_order_where_the_wire_keeps_them_so() -> None:
    hour = Hour(9)
    for _ in range(400):
        hour.send(hour.rng.choice((hour.alice, hour.bob)), hour.rng.randrange(1, 6))
        hour.world.run(hour.rng.choice((0.001, 0.005, 3.0)))
    hour.world.run(10)
    assert [packet for _, packet in hour.bob.packets] == hour.sent["alice"]
    assert [packet for _, packet in hour.alice.packets] == hour.sent["bob"]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("alice"), st.integers(1, 30)),
        st.tuples(st.just("bob"), st.integers(1, 30)),
        st.tuples(st.just("wait"), st.sampled_from([1, 11, 100, 1300, 1700, 6000])),
        st.tuples(st.just("restart"), st.integers(0, 1)),
        st.tuples(st.just("roam"), st.integers(0, 1)),
        st.tuples(st.just("clock"), st.sampled_from([-86_400, -1, 3600])),
        st.tuples(st.just("cut"), st.sampled_from([20, 150])),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(st.integers(0, 1 << 16), STEPS)
def test_whatever_happens_no_nonce_comes_twice_and_the_ends_find_each_other_again(
    seed: int, steps: list[tuple[str, int]]
) -> None:
    hour = Hour(seed)
    world = hour.world
    usual = world.fate = bad_wire(hour.rng, loss=0.1, spread_ns=64_000_000)
    for what, value in steps:
        node = (hour.alice, hour.bob)[value % 2]
        if what in ("alice", "bob"):
            hour.send(world.nodes[what], value)
        elif what == "wait":
            world.run(value / 10)
        elif what == "restart":
            hour.restart(node)
        elif what == "roam":
            world.roam(node, f"198.51.100.{hour.rng.randrange(1, 250)}", hour.rng.randrange(1, 65_536))
        elif what == "clock":
            world.wall_offset_ns += value * SECOND_NS
        else:
            world.fate = lambda datagram: []
            world.run(value)
            world.fate = usual
        world.run(0.05)
        for end in (hour.alice, hour.bob):
            check(end)
    for receiver, sender in ((hour.alice, hour.bob), (hour.bob, hour.alice)):
        hour.missing(receiver, sender)
    # A quiet wire and an address that holds: both ends hear each other again, whatever was before.
    world.fate = lambda datagram: [DELAY_NS]
    for end, other in ((hour.alice, hour.bob), (hour.bob, hour.alice)):
        end.tunnel.set_endpoint(other.name, other.home, world.now)
    for _ in range(30):
        hour.send(hour.alice, 1)
        hour.send(hour.bob, 1)
        world.run(1)
    assert hour.bob.packets[-1][1] == hour.sent["alice"][-1]
    assert hour.alice.packets[-1][1] == hour.sent["bob"][-1]


def check(node: Node) -> None:
    """Checks that hold for a tunnel between any two calls."""
    table = node.tunnel._indices
    for peer in node.tunnel._peers.values():
        slots = [one for one in (peer.slots.current, peer.slots.previous, peer.slots.next) if one is not None]
        assert {id(session) for session in slots} == {id(session) for session in table.sessions.values()}
        assert all(table.sessions[session.local] is session for session in slots)
        assert not any(session.keys.send.is_wiped for session in slots)
        assert list(table.pending) == ([peer.handshake.pending_index] if peer.handshake.pending is not None else [])
        assert not peer._staged or peer.timers.retransmit < 1 << 63


def test_initiations_are_never_closer_than_5_s_whatever_happens() -> None:
    hour = Hour(11)
    hour.world.fate = bad_wire(hour.rng, loss=0.4)
    for _ in range(1500):
        hour.send(hour.rng.choice((hour.alice, hour.bob)), 1)
        hour.world.run(hour.rng.choice((0.01, 0.3, 4.0, 30.0)))
    for name in ("alice", "bob"):
        times = [line.at for line in hour.world.sent(name, MessageKind.INITIATION)]
        assert len(times) > 20
        assert all(after - before >= 5 for before, after in itertools.pairwise(times))
    assert all(kind_of(line.datagram) is not None for line in hour.world.log)


def test_burst_that_two_threads_seal_and_open_stays_in_order() -> None:
    class Halves:
        """The first half of a burst on one thread, the second on another."""

        def __init__(self) -> None:
            self.pool = ThreadPoolExecutor(2)
            self.ciphers = (Cipher(), Cipher())

        def seal_burst(
            self, key: TransportKey, receiver: int, first: int, packets: Sequence[bytes], mtu_bytes: int
        ) -> list[bytes]:
            half = len(packets) // 2
            one = self.pool.submit(self.ciphers[0].seal_burst, key, receiver, first, packets[:half], mtu_bytes)
            two = self.pool.submit(self.ciphers[1].seal_burst, key, receiver, first + half, packets[half:], mtu_bytes)
            return one.result() + two.result()

        def open_burst(self, jobs: Sequence[tuple[TransportKey, bytes]]) -> list[bytes | None]:
            half = len(jobs) // 2
            one = self.pool.submit(self.ciphers[0].open_burst, jobs[:half])
            two = self.pool.submit(self.ciphers[1].open_burst, jobs[half:])
            return one.result() + two.result()

    world, alice, bob = connected()
    halves = Halves()
    for node in (alice, bob):
        node.tunnel._common.cipher = halves
    packets = [inner(200 + mark, mark=mark) for mark in range(301)]
    sealed = alice.tunnel.send("bob", packets, world.now)
    effects = bob.tunnel.receive([Received(datagram, alice.home) for _, datagram, _ in sealed.datagrams], world.now)
    assert [packet for _, packet in effects.packets] == packets
    halves.pool.shutdown()
