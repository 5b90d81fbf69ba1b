"""Relays and nodes behind them against strangers, against recordings, and against peers who are up to no good."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tunnel_world import HOMES, KEYS, Node, World, inner, kinds, peer_of, star, talking

from tunnel.cookies import SOURCE_BURST, SourceLimits
from tunnel.effects import Effects, Endpoint, Happening, PeerEvent, Received
from tunnel.endpoint import Tunnel
from tunnel.envelope import HOPS, Envelope, node_id
from tunnel.messages import DATAGRAM_MAXIMUM_BYTES, ENVELOPE_BYTES, MessageKind, kind_of
from tunnel.peers.peer import Peer
from tunnel.primitives import TransportKey, seal_under
from tunnel.session import Session
from wire.drop import Drop
from wire.units import SECOND_NS

STRANGER = Endpoint(bytes([203, 0, 113, 99]), 9)
ALICE, BOB, MALLORY, RELAY = (node_id(name) for name in ("alice", "bob", "mallory", "relay"))


def peer_at(node: Node, name: str) -> Peer:
    """A node's state of a peer of its own: with it, the node may seal whatever it likes."""
    return node.tunnel._by_name[name]


def session_with(node: Node, name: str) -> Session:
    session = peer_at(node, name).slots.current
    assert session is not None
    return session


def crafted(world: World, by: str, to: str, *envelopes: Envelope) -> list[bytes]:
    """Envelopes as a node seals them for a neighbour, without any of the rules for what it may say."""
    out = Effects()
    assert peer_at(world.nodes[by], to).carry(envelopes, world.now, out)
    return [datagram.data for datagram in out.datagrams]


def message(world: World, by: str = "alice", to: str = "bob", size: int = 30) -> bytes:
    """A data message as it lies in its envelope."""
    [one] = world.nodes[by].tunnel.send(to, [inner(size)], world.now).datagrams
    assert kind_of(one.data) is MessageKind.RELAYED
    return one.data[ENVELOPE_BYTES:]


def taken(world: World, at: str, *datagrams: bytes, source: Endpoint | None = None) -> Effects:
    where = HOMES["alice"] if source is None else source
    return world.nodes[at].tunnel.receive([Received(datagram, where) for datagram in datagrams], world.now)


def is_refused(effects: Effects, reason: Drop, number: int = 1) -> bool:
    """Counted under one reason; nothing to send, to hand in or to tell (but where an authentic sender is)."""
    told = [event for event in effects.events if event.what is not Happening.MOVED]
    return not (effects.datagrams or effects.packets or effects.unsent or told) and effects.drops == {reason: number}


def test_a_stranger_s_envelopes_are_dropped_before_anything_is_made_of_them() -> None:
    world = talking()
    relay = world.nodes["relay"]
    index = session_with(relay, "alice").local
    guess = TransportKey(bytearray(b"guess" * 6 + b"!!"))
    envelope = Envelope(HOPS, ALICE, BOB, message(world))
    for key in (guess, TransportKey(bytearray(32))):
        forged = envelope.sealed(key, index, 1 << 40)
        assert is_refused(taken(world, "relay", forged, source=STRANGER), Drop.TUNNEL_AUTHENTICATION)
    unknown = envelope.sealed(guess, index ^ 1, 1 << 40)
    assert is_refused(taken(world, "relay", unknown, source=STRANGER), Drop.TUNNEL_UNKNOWN_INDEX)
    for status in relay.tunnel.status(world.now):
        assert status.endpoint != STRANGER
    assert session_with(relay, "alice").window.may_be_new(1 << 40)


def test_a_recorded_envelope_is_passed_on_once_however_often_it_comes() -> None:
    world = talking()
    [recorded] = crafted(world, "alice", "relay", Envelope(HOPS, ALICE, BOB, message(world)))
    effects = taken(world, "relay", *[recorded] * 200)
    assert len(effects.datagrams) == 1
    assert effects.drops == {Drop.TUNNEL_REPLAY: 199}
    assert is_refused(taken(world, "relay", recorded, source=STRANGER), Drop.TUNNEL_REPLAY)
    [passed] = [one.data for one in effects.datagrams]
    came = taken(world, "bob", *[passed] * 50, source=HOMES["relay"])
    assert (len(came.packets), came.drops) == (1, {Drop.TUNNEL_REPLAY: 49})
    [again] = crafted(world, "relay", "bob", Envelope(0, ALICE, BOB, passed[ENVELOPE_BYTES:]))
    assert is_refused(taken(world, "bob", again, source=HOMES["relay"]), Drop.TUNNEL_REPLAY)


def test_a_recorded_envelope_is_worth_nothing_once_its_session_is_over() -> None:
    world = talking()
    [recorded] = crafted(world, "alice", "relay", Envelope(HOPS, ALICE, BOB, message(world)))
    world.now += 180 * SECOND_NS
    assert is_refused(taken(world, "relay", recorded), Drop.TUNNEL_EXPIRED)


def test_no_byte_of_an_envelope_may_be_changed_on_the_way() -> None:
    world = talking()
    [good] = crafted(world, "alice", "relay", Envelope(HOPS, ALICE, BOB, message(world)))
    for at in range(len(good)):
        changed = bytearray(good)
        changed[at] ^= 1 if at else 2  # type 7; type 4 is the next test's
        effects = taken(world, "relay", bytes(changed))
        assert not effects.datagrams, at
        assert not effects.packets
        assert sum(effects.drops.values()) == 1
    longer = taken(world, "relay", good + bytes(16), good[:-1])
    assert longer.drops == {Drop.TUNNEL_AUTHENTICATION: 2}
    assert len(taken(world, "relay", good).datagrams) == 1


def test_an_envelope_is_no_data_message_and_data_no_envelope() -> None:
    world = talking()
    [envelope] = crafted(world, "alice", "relay", Envelope(HOPS, ALICE, BOB, message(world)))
    assert is_refused(taken(world, "relay", b"\4" + envelope[1:]), Drop.TUNNEL_AUTHENTICATION)
    alice = world.nodes["alice"].tunnel
    alice.set_peers([peer_of("relay"), peer_of("bob", known=False, via="relay")], world.now)
    for size in (20, 100, 500):
        [data] = alice.send("relay", [inner(size)], world.now).datagrams
        assert taken(world, "relay", b"\5" + data.data[1:]).datagrams == []
    short = Envelope(HOPS, ALICE, BOB, b"").sealed(session_with(world.nodes["alice"], "relay").keys.send, 0, 0)
    assert is_refused(taken(world, "relay", b"\4" + short[1:]), Drop.TUNNEL_UNKNOWN_INDEX)


@pytest.mark.parametrize("size", [0, 4, 16, 36, ENVELOPE_BYTES, ENVELOPE_BYTES + 31, DATAGRAM_MAXIMUM_BYTES + 1])
def test_envelopes_that_are_too_short_or_too_long_are_no_messages(size: int) -> None:
    world = talking()
    assert is_refused(taken(world, "relay", b"\5\0\0\0".ljust(size, b"\0")[:size]), Drop.TUNNEL_MALFORMED)
    assert is_refused(taken(world, "relay", b"\5\0\1\0".ljust(200, b"\0")), Drop.TUNNEL_MALFORMED)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda good, nested: good._replace(message=nested), Drop.TUNNEL_RELAY_MALFORMED),
        (lambda good, _: good._replace(message=b"\4\0\0\0" + bytes(27)), Drop.TUNNEL_MALFORMED),
        (lambda good, _: good._replace(message=b"\1\0\0\0" + bytes(145)), Drop.TUNNEL_RELAY_MALFORMED),
        (lambda good, _: good._replace(message=b"any other protocol, tunnelled for free"), Drop.TUNNEL_RELAY_MALFORMED),
        (lambda good, _: good._replace(hops=HOPS + 1), Drop.TUNNEL_RELAY_MALFORMED),
        (lambda good, _: good._replace(hops=255), Drop.TUNNEL_RELAY_MALFORMED),
        (lambda good, _: good._replace(hops=0), Drop.TUNNEL_RELAY_HOPS),
        (lambda good, _: good._replace(source=ALICE), Drop.TUNNEL_RELAY_SOURCE),
        (lambda good, _: good._replace(source=BOB), Drop.TUNNEL_RELAY_SOURCE),
        (lambda good, _: good._replace(source=RELAY), Drop.TUNNEL_RELAY_SOURCE),
        (lambda good, _: good._replace(source=bytes(8)), Drop.TUNNEL_RELAY_SOURCE),
        (lambda good, _: good._replace(destination=MALLORY), Drop.TUNNEL_RELAY_BACK),
        (lambda good, _: good._replace(destination=RELAY), Drop.TUNNEL_RELAY_SOURCE),
        (lambda good, _: good._replace(destination=bytes(8)), Drop.TUNNEL_RELAY_DESTINATION),
        (lambda good, _: good._replace(destination=node_id("nobody")), Drop.TUNNEL_RELAY_DESTINATION),
    ],
)
def test_what_a_configured_peer_must_not_ask_of_a_relay(
    make: Callable[[Envelope, bytes], Envelope], reason: Drop
) -> None:
    """Mallory is a peer of the relay's like Alice and Bob, and seals what she likes."""
    world = talking()
    good = Envelope(HOPS, MALLORY, BOB, message(world))
    [nested] = crafted(world, "mallory", "relay", good)
    assert len(taken(world, "relay", nested, source=HOMES["mallory"]).datagrams) == 1
    [bad] = crafted(world, "mallory", "relay", make(good, nested))
    assert is_refused(taken(world, "relay", bad, source=HOMES["mallory"]), reason)


def test_reserved_bytes_of_the_address_must_be_zero() -> None:
    world = talking()
    session = session_with(world.nodes["mallory"], "relay")
    body = message(world)
    address = bytes([HOPS, 0, 1, 0]) + MALLORY + BOB
    sealed = seal_under(session.keys.send, 1000, address, body)
    datagram = b"\5\0\0\0" + session.remote.to_bytes(4, "little") + (1000).to_bytes(8, "little") + sealed + body
    assert is_refused(taken(world, "relay", datagram, source=HOMES["mallory"]), Drop.TUNNEL_RELAY_MALFORMED)


def test_what_mallory_sends_to_bob_under_her_own_name_is_for_bob_to_refuse() -> None:
    """The relay passes it on, Bob has no peer of that name: silence, and nothing but a counter."""
    world = talking()
    [envelope] = crafted(world, "mallory", "relay", Envelope(HOPS, MALLORY, BOB, message(world)))
    [passed] = taken(world, "relay", envelope, source=HOMES["mallory"]).datagrams
    assert is_refused(taken(world, "bob", passed.data, source=HOMES["relay"]), Drop.TUNNEL_RELAY_SOURCE)


@pytest.mark.parametrize(
    "source", [ALICE, BOB, MALLORY, RELAY, bytes(8)], ids=["alice", "bob", "mallory", "relay", "0"]
)
@pytest.mark.parametrize("destination", [ALICE, BOB, RELAY, bytes(8)], ids=["alice", "bob", "relay", "0"])
def test_a_relay_up_to_no_good_cannot_make_a_message_of_its_own(source: bytes, destination: bytes) -> None:
    """The relay speaks for Alice at Bob's; what it seals itself is not hers, whatever it writes on it."""
    world = talking()
    relay, bob = world.nodes["relay"], world.nodes["bob"]
    own = [
        b"\4\0\0\0" + session_with(bob, "alice").local.to_bytes(4, "little") + (99).to_bytes(8, "little") + bytes(48),
        b"\4\0\0\0" + session_with(bob, "relay").local.to_bytes(4, "little") + (99).to_bytes(8, "little") + bytes(48),
        relay.tunnel.call("bob", world.now + 10 * SECOND_NS).datagrams[0].data,
        relay.tunnel.send("bob", [inner()], world.now).datagrams[0].data,
        b"\2\0\0\0" + bytes(88),
        b"\3\0\0\0" + bytes(60),
    ]
    for datagram in crafted(world, "relay", "bob", *(Envelope(1, source, destination, one) for one in own)):
        effects = taken(world, "bob", datagram, source=HOMES["relay"])
        assert not effects.datagrams
        assert not effects.packets
        assert sum(effects.drops.values()) == 1
    assert peer_at(bob, "alice").endpoint == Endpoint(ALICE, 0, "relay")
    assert peer_at(bob, "relay").endpoint == HOMES["relay"]


def test_a_relay_that_wraps_a_direct_peer_s_message_moves_nobody() -> None:
    """Carol calls Bob directly. The relay has caught her call and hands it on as if it came from behind itself."""
    world = star()
    carol = world.add("carol", peer_of("bob"))
    bob = world.nodes["bob"]
    bob.tunnel.set_peers(
        [peer_of("relay"), peer_of("alice", known=False, via="relay"), peer_of("carol", known=False)], world.now
    )
    world.run(1)
    [call] = carol.tunnel.call("bob", world.now).datagrams
    [wrapped] = crafted(world, "relay", "bob", Envelope(1, ALICE, BOB, call.data))
    assert is_refused(taken(world, "bob", wrapped, source=HOMES["relay"]), Drop.TUNNEL_RELAY_SOURCE)
    [response] = taken(world, "bob", call.data, source=carol.home).datagrams
    assert response.endpoint == carol.home
    carol.tunnel.receive([Received(response.data, bob.home)], world.now)
    [data] = carol.tunnel.send("bob", [inner()], world.now).datagrams
    [wrapped] = crafted(world, "relay", "bob", Envelope(1, ALICE, BOB, data.data))
    assert is_refused(taken(world, "bob", wrapped, source=HOMES["relay"]), Drop.TUNNEL_RELAY_SOURCE)
    assert peer_at(bob, "carol").endpoint == carol.home
    [call] = bob.tunnel.call("carol", world.now + 6 * SECOND_NS).datagrams
    [answer] = carol.tunnel.receive([Received(call.data, bob.home)], world.now + 6 * SECOND_NS).datagrams
    [wrapped] = crafted(world, "relay", "bob", Envelope(1, ALICE, BOB, answer.data))
    assert is_refused(taken(world, "bob", wrapped, source=HOMES["relay"]), Drop.TUNNEL_RELAY_SOURCE)


def test_an_envelope_under_the_session_of_two_ends_is_refused() -> None:
    """Bob is behind a relay for Alice: he may not send her envelopes himself, nor have her relay any."""
    world = talking()
    bob_s = session_with(world.nodes["bob"], "alice")
    for envelope in (Envelope(1, BOB, ALICE, message(world, "bob", "alice")), Envelope(1, BOB, RELAY, message(world))):
        datagram = envelope.sealed(bob_s.keys.send, bob_s.remote, bob_s.reserve(1))
        assert is_refused(taken(world, "alice", datagram, source=STRANGER), Drop.TUNNEL_RELAY_SOURCE)
    assert peer_at(world.nodes["alice"], "bob").endpoint == Endpoint(BOB, 0, "relay")


def test_a_node_that_does_not_say_via_takes_nothing_through_the_relay() -> None:
    """Both ends say via: Bob knows Alice, but not behind a relay."""
    world = star()
    bob = world.nodes["bob"]
    bob.tunnel.set_peers([peer_of("relay", persistent_keepalive_s=25), peer_of("alice", known=False)], world.now)
    world.send(world.nodes["alice"], "bob", inner())
    world.run(20)
    assert bob.drops == {Drop.TUNNEL_RELAY_SOURCE: bob.drops[Drop.TUNNEL_RELAY_SOURCE]}
    assert bob.drops[Drop.TUNNEL_RELAY_SOURCE] >= 2
    assert bob.packets == []
    assert world.nodes["alice"].happened(Happening.SESSION) == 1


def test_relay_false_refuses_and_its_own_messages_still_pass() -> None:
    world = star(relays=False)
    world.send(world.nodes["alice"], "bob", inner())
    world.run(3)
    assert world.nodes["relay"].drops[Drop.TUNNEL_RELAY_OFF] >= 1
    assert not world.sent("relay", MessageKind.RELAYED)
    world.send(world.nodes["alice"], "relay", inner(mark=1))
    world.run(1)
    assert world.nodes["relay"].packets == [("alice", inner(mark=1))]


def test_a_destination_without_a_session_gets_nothing_and_is_called_once_in_five_seconds() -> None:
    world = talking()
    relay = world.nodes["relay"]
    world.run(30)
    peer_at(relay, "bob").erase()
    burst = crafted(world, "alice", "relay", *[Envelope(HOPS, ALICE, BOB, message(world))] * 100)
    effects = taken(world, "relay", *burst)
    assert effects.drops == {Drop.TUNNEL_RELAY_NO_SESSION: 100}
    assert kinds(effects) == [MessageKind.INITIATION]
    assert relay.tunnel._relaying._held == {}
    fresh = star()
    fresh.nodes["relay"].tunnel.set_peers([peer_of("alice", known=False), peer_of("bob", known=False)], fresh.now)
    fresh.at.pop(HOMES["bob"])
    fresh.run(1)
    [sealed] = crafted(fresh, "alice", "relay", Envelope(HOPS, ALICE, BOB, message(world)))
    assert is_refused(taken(fresh, "relay", sealed), Drop.TUNNEL_RELAY_NO_SESSION)


def test_two_relays_that_name_each_other_do_not_play_ball() -> None:
    world = World()
    world.add("alice", peer_of("relay"), peer_of("bob", known=False, via="relay"))
    world.add("relay", peer_of("alice"), peer_of("second"), peer_of("bob", known=False, via="second"))
    second = world.add(
        "second", peer_of("relay"), peer_of("alice", via="relay", known=False), peer_of("bob", via="relay", known=False)
    )
    world.run(1)
    world.send(world.nodes["alice"], "bob", inner())
    world.run(20)
    assert second.drops[Drop.TUNNEL_RELAY_BACK] >= 2
    for by in ("relay", "second"):
        assert len(world.sent(by, MessageKind.RELAYED)) <= len(world.sent("alice", MessageKind.RELAYED))
    assert world.sent("second", MessageKind.RELAYED) == []


def circle() -> World:
    """Three relays, each of which says that Alice is behind the one before and Bob behind the one after."""
    world = World()
    names = ["relay", "second", "third"]
    for at, name in enumerate(names):
        before, after = names[at - 1], names[(at + 1) % 3]
        world.add(
            name,
            peer_of(before),
            peer_of(after),
            peer_of("alice", via=before, known=False),
            peer_of("bob", via=after, known=False),
        )
    for name in names:
        for peer in names:
            if peer != name:
                world.carry(world.nodes[name], world.nodes[name].tunnel.call(peer, world.now))
        world.run(1)
    return world


def test_an_envelope_in_a_circle_of_relays_ends_with_its_hops() -> None:
    world = circle()
    start = len(world.log)
    out = Effects()
    body = b"\4\0\0\0" + bytes(60)
    assert peer_at(world.nodes["third"], "relay").carry([Envelope(HOPS, ALICE, BOB, body)], world.now, out)
    world.carry(world.nodes["third"], out)
    world.run(5)
    lines = [line for line in world.log[start:] if line.kind is MessageKind.RELAYED]
    assert [line.by for line in lines] == ["third", "relay", "second", "third", "relay"]
    assert world.nodes["second"].drops == {Drop.TUNNEL_RELAY_HOPS: 1}


def test_one_honest_relay_in_a_circle_breaks_it() -> None:
    """A relay that has Alice as its neighbour takes hers from nobody else."""
    world = circle()
    world.nodes["relay"].tunnel.set_peers(
        [peer_of("second"), peer_of("third"), peer_of("alice"), peer_of("bob", via="second")], world.now
    )
    out = Effects()
    assert peer_at(world.nodes["third"], "relay").carry(
        [Envelope(HOPS, ALICE, BOB, b"\4\0\0\0" + bytes(60))], world.now, out
    )
    world.carry(world.nodes["third"], out)
    world.run(5)
    assert world.nodes["relay"].drops == {Drop.TUNNEL_RELAY_SOURCE: 1}


def test_a_flood_is_never_made_larger() -> None:
    """Three configured peers send good and bad datagrams for 20 s: the relay sends no more datagrams or bytes."""
    world = talking(3)
    rng, relay = world.rng, world.nodes["relay"]
    came, went = [0, 0], [0, 0]
    ids = [ALICE, BOB, MALLORY, RELAY, bytes(8)]
    recorded: list[bytes] = []
    body = message(world)
    for _ in range(3000):
        world.now += 5_000_000
        by = rng.choice(("alice", "bob", "mallory"))
        envelope = Envelope(rng.randrange(6), rng.choice(ids), rng.choice(ids), rng.choice((body, bytes(40), body * 9)))
        [datagram] = crafted(world, by, "relay", envelope)
        recorded.append(datagram)
        burst = [datagram, rng.choice(recorded)]
        if rng.random() < 0.3:
            mangled = bytearray(datagram)
            mangled[rng.randrange(len(mangled))] ^= 1 << rng.randrange(8)
            burst.append(bytes(mangled))
        effects = taken(world, "relay", *burst, source=HOMES[by])
        passed = [one.data for one in effects.datagrams if kind_of(one.data) is MessageKind.RELAYED]
        assert len(passed) <= 1
        for counts, datagrams in ((came, burst), (went, [one.data for one in effects.datagrams])):
            counts[0] += len(datagrams)
            counts[1] += sum(map(len, datagrams))
    assert went[0] > 30
    assert went[0] <= came[0] / 4
    assert went[1] <= came[1] / 4
    assert relay.packets == []


def test_under_load_each_node_behind_a_relay_has_a_share_of_its_own() -> None:
    """One of them that floods does not use up what the others may have, nor the relay's own."""
    limits = SourceLimits()
    flooding, quiet = Endpoint(ALICE, 0, "relay"), Endpoint(MALLORY, 0, "relay")
    assert [limits.allows(flooding, 0) for _ in range(SOURCE_BURST + 1)] == [True] * SOURCE_BURST + [False]
    assert limits.allows(quiet, 0)
    assert limits.allows(HOMES["relay"], 0)


def test_relaying_takes_no_memory_at_the_relay() -> None:
    world = talking()
    relay = world.nodes["relay"].tunnel
    for mark in range(50):
        body = Envelope(HOPS, ALICE, bytes([mark]) * 8, message(world))
        relay.receive([Received(one, HOMES["alice"]) for one in crafted(world, "alice", "relay", body)], world.now)
    assert not relay._relaying._held
    assert not relay._relaying._received
    assert set(relay._relaying._by_id) == {ALICE, BOB, MALLORY}


def test_a_session_that_ends_within_a_burst_opens_nothing_afterwards() -> None:
    """An envelope may confirm a new session, which ends an older one that data of the same burst came under."""
    world = talking()
    alice, relay = world.nodes["alice"], world.nodes["relay"]
    world.run(6)
    held: list[bytes] = []
    for _ in range(2):
        [data] = alice.tunnel.send("relay", [inner()], world.now).datagrams
        held.append(data.data)
        [call] = alice.tunnel.call("relay", world.now).datagrams
        [response] = taken(world, "relay", call.data).datagrams
        confirmed = alice.tunnel.receive([Received(response.data, relay.home)], world.now)
        [envelope] = crafted(world, "alice", "relay", Envelope(HOPS, ALICE, BOB, message(world)))
        world.now += 6 * SECOND_NS
        if len(held) < 2:
            taken(world, "relay", *(one.data for one in confirmed.datagrams))
    effects = taken(world, "relay", held[0], envelope, held[1])
    assert [packet for _, packet in effects.packets] == [inner(), inner()]
    assert len([one for one in effects.datagrams if kind_of(one.data) is MessageKind.RELAYED]) == 1
    assert PeerEvent(Happening.SESSION, "alice") in effects.events
    assert is_refused(taken(world, "relay", held[0]), Drop.TUNNEL_UNKNOWN_INDEX)


def test_a_plain_peer_drops_envelopes_as_a_type_that_it_does_not_know() -> None:
    """A node without names and relays: authentic envelopes are counted, and that is all."""
    world = World()
    alice = world.add("alice", peer_of("bob"))
    plain = Tunnel(
        KEYS["bob"],
        [peer_of("alice", known=False)],
        world.now,
        wall_ns=lambda: world.wall_offset_ns + world.now,
        random_bytes=world.rng.randbytes,
    )
    world.add("bob").tunnel = plain
    world.send(alice, "bob", inner())
    world.run(1)
    [envelope] = crafted(world, "alice", "bob", Envelope(HOPS, ALICE, b"", b"\4\0\0\0" + bytes(60)))
    assert is_refused(taken(world, "bob", envelope), Drop.TUNNEL_RELAY_DESTINATION)
