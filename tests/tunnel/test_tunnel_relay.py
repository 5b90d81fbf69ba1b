"""Nodes that reach each other through a relay: what arrives, what the relay sees, and what survives."""

from __future__ import annotations

import pytest
from tunnel_world import (
    DELAY_NS,
    HOMES,
    PUBLIC,
    RELAYED,
    Node,
    World,
    inner,
    kinds,
    peer_of,
    star,
    star_peers,
    talking,
)

from tunnel.cookies import LOAD_HANDSHAKES
from tunnel.ecn import HANDSHAKE_TOS
from tunnel.effects import Effects, Endpoint, Happening, PeerConfig, Received, Role, Unsent
from tunnel.envelope import HOPS, node_id
from tunnel.messages import ENVELOPE_BYTES, MessageKind, kind_of
from tunnel.relay import CALL_AGAIN_S, HELD_DATAGRAMS, HELD_NS, same_id
from wire.drop import Drop
from wire.units import SECOND_NS

BOB_BEHIND_RELAY = Endpoint(node_id("bob"), 0, "relay")


class Talk:
    """Alice and Bob send each other a numbered packet every `every` seconds."""

    def __init__(self, world: World, every: float = 1.0) -> None:
        self.world = world
        self.every = every
        self.sent = 0
        for name in RELAYED:
            world.nodes[name].packets.clear()

    def go_on(self, seconds: float) -> None:
        for _ in range(round(seconds / self.every)):
            self.sent += 1
            for name, other in RELAYED.items():
                self.world.send(self.world.nodes[name], other, inner(100, mark=self.sent))
            self.world.run(self.every)

    def arrived(self, name: str) -> list[int]:
        return [int.from_bytes(packet[4:8], "big") for _, packet in self.world.nodes[name].packets]


def endpoint_of(node: Node, peer: str, now: int) -> Endpoint | None:
    return next(status.endpoint for status in node.tunnel.status(now) if status.name == peer)


def arrives(world: World, mark: int, name: str = "alice") -> bool:
    """Whether a packet of one end is at the other within a second."""
    other = RELAYED[name]
    world.send(world.nodes[name], other, inner(mark=mark))
    world.run(1)
    return (name, inner(mark=mark)) in world.nodes[other].packets


def test_the_first_packet_arrives_as_soon_as_both_handshakes_are_through() -> None:
    """Nothing waits for a repeated initiation: two steps for the relay's session, four for Bob's, two for itself."""
    world = star()
    world.run(10)
    world.restart(world.nodes["alice"], *star_peers("alice"))
    world.send(world.nodes["alice"], "bob", inner())
    world.run(8 * DELAY_NS / SECOND_NS)
    assert world.nodes["bob"].packets == [("alice", inner())]
    assert world.nodes["relay"].drops == {}


def test_what_passes_the_relay_is_the_sealed_message_byte_for_byte_and_nothing_can_be_read() -> None:
    world = talking()
    secret = b"the plaintext, which nobody but Bob may see, many times over"
    packet = inner(20 + len(secret))[:20] + secret
    start = len(world.log)
    world.send(world.nodes["alice"], "bob", packet)
    world.run(0.05)
    assert world.nodes["bob"].packets[-1] == ("alice", packet)
    [first, second] = world.log[start:]
    assert [(line.by, line.kind, line.to) for line in (first, second)] == [
        ("alice", MessageKind.RELAYED, HOMES["relay"]),
        ("relay", MessageKind.RELAYED, HOMES["bob"]),
    ]
    assert first.datagram[ENVELOPE_BYTES:] == second.datagram[ENVELOPE_BYTES:]
    assert kind_of(first.datagram[ENVELOPE_BYTES:]) is MessageKind.DATA
    assert first.datagram[4:ENVELOPE_BYTES] != second.datagram[4:ENVELOPE_BYTES]
    assert len(first.datagram) == len(second.datagram) == ENVELOPE_BYTES + 32 + 80
    for line in world.log:
        for clear in (secret[:16], node_id("alice"), node_id("bob"), PUBLIC["alice"], PUBLIC["bob"]):
            assert clear not in line.datagram
    assert world.nodes["relay"].packets == []


def test_the_relay_sends_one_datagram_of_the_same_size_for_each_that_came() -> None:
    world = talking()
    relay = world.nodes["relay"].tunnel
    burst = world.nodes["alice"].tunnel.send("bob", [inner(100 * number) for number in range(1, 14)], world.now)
    came = [Received(datagram, HOMES["alice"]) for _, datagram, _ in burst.datagrams]
    assert len(came) == 13
    passed = relay.receive(came, world.now)
    assert [len(one.data) for one in passed.datagrams] == [len(one.data) for one in came]
    assert {one.endpoint for one in passed.datagrams} == {HOMES["bob"]}


def test_an_envelope_takes_52_bytes_and_the_inner_mtu_gives_them() -> None:
    world = talking()
    alice = world.nodes["alice"].tunnel
    assert {status.name: status.mtu_bytes for status in alice.status(world.now)} == {"relay": 1420, "bob": 1368}
    sizes = [len(alice.send("bob", [inner(size)], world.now).datagrams[0].data) for size in (1360, 1361, 1367, 1368)]
    assert sizes == [1360 + 84, 1368 + 84, 1368 + 84, 1368 + 84]
    alice.set_mtu(1300, world.now)
    assert alice.status(world.now)[1].mtu_bytes == 1248


def test_congestion_marks_pass_the_relay_and_reach_the_inner_packet() -> None:
    world = talking()
    packet = bytearray(inner(mark=7))
    packet[1] = 2  # ECT(0)
    [leaves] = world.nodes["alice"].tunnel.send("bob", [bytes(packet)], world.now).datagrams
    assert leaves.tos == 2
    [passed] = world.nodes["relay"].tunnel.receive([Received(leaves.data, HOMES["alice"], 3)], world.now).datagrams
    assert passed.tos == 3
    came = world.nodes["bob"].tunnel.receive([Received(passed.data, HOMES["relay"], passed.tos)], world.now)
    assert came.packets[0][1][1] == 3


def test_handshakes_keep_their_class_behind_the_relay() -> None:
    world = star()
    world.run(1)
    [leaves] = world.nodes["alice"].tunnel.call("bob", world.now).datagrams
    [passed] = world.nodes["relay"].tunnel.receive([Received(leaves.data, HOMES["alice"], 1)], world.now).datagrams
    assert (leaves.tos, passed.tos) == (HANDSHAKE_TOS, HANDSHAKE_TOS | 1)


def test_a_relay_is_called_at_the_start_and_kept_without_any_traffic() -> None:
    """The relay, which learns where the nodes are, can reach both of them after a day of silence."""
    world = star()
    world.run(86_400)
    assert all(world.nodes[name].happened(Happening.SESSION) > 86_400 // 300 for name in RELAYED)
    assert arrives(world, 1)
    assert len(world.log) < 86_400 // CALL_AGAIN_S * 20


def test_the_configured_keepalive_holds_the_way_to_the_relay_open() -> None:
    world = star(persistent_keepalive_s=25)
    world.run(100)
    start = len(world.log)
    world.run(10)
    assert len(world.log) - start <= 2
    assert len([line for line in world.keepalives("alice") if line.at < 100]) >= 3


def test_without_the_relay_32_datagrams_wait_for_5_seconds() -> None:
    world = star()
    alice = world.nodes["alice"]
    world.fate = lambda datagram: []
    world.send(alice, "bob", inner())
    for _ in range(40):  # each is a cookie's worth of trouble: an initiation that nobody answers
        world.run(6)
        world.carry(alice, alice.tunnel.call("bob", world.now))
    assert {line.kind for line in world.log if line.by == "alice"} == {MessageKind.INITIATION}
    assert {line.to for line in world.log if line.by == "alice"} == {HOMES["relay"]}
    assert alice.drops[Drop.TUNNEL_RELAY_QUEUE] > 10
    world.fate = lambda datagram: [DELAY_NS]
    world.run(20)
    assert arrives(world, 1)


def test_data_that_finds_no_relay_is_bounded_and_old_data_does_not_leave() -> None:
    world = talking()
    alice = world.nodes["alice"].tunnel
    alice._by_name["relay"].erase()
    effects = alice.send("bob", [inner(mark=mark) for mark in range(100)], world.now)
    assert effects.drops == {Drop.TUNNEL_RELAY_QUEUE: 100 - HELD_DATAGRAMS}
    assert kinds(effects) in ([MessageKind.INITIATION], [])  # not twice within 5 s
    world.now += HELD_NS
    late = alice.send("bob", [inner(mark=1)], world.now)
    assert late.drops == {Drop.TUNNEL_RELAY_QUEUE: HELD_DATAGRAMS}
    assert len(alice._relaying._held["relay"]) == 1


def test_what_waits_leaves_in_order_with_the_session() -> None:
    world = talking()
    alice, bob = world.nodes["alice"], world.nodes["bob"]
    world.run(10)
    alice.tunnel._by_name["relay"].erase()
    bob.packets.clear()
    for mark in range(20):
        world.send(alice, "bob", inner(mark=mark))
    world.run(1)
    assert [packet for _, packet in bob.packets] == [inner(mark=mark) for mark in range(20)]


def test_all_three_sessions_are_renewed_under_traffic_and_nothing_is_lost() -> None:
    world = talking()
    talk = Talk(world)
    talk.go_on(700)
    for name in RELAYED:
        assert talk.arrived(name) == list(range(1, 701))
        node = world.nodes[name]
        for peer in (RELAYED[name], "relay"):
            renewed = [event for event in node.events if event.peer == peer and event.what is Happening.SESSION]
            assert len(renewed) >= 5, (name, peer)
        assert not node.unsent
    assert not world.nodes["relay"].drops


def test_every_envelope_has_a_counter_of_its_own_among_the_data_of_its_session() -> None:
    world = talking()
    Talk(world, 0.5).go_on(300)
    named = [
        (line.by, line.datagram[4:16]) for line in world.log if line.kind in (MessageKind.DATA, MessageKind.RELAYED)
    ]
    assert len(set(named)) == len(named) > 1000


@pytest.mark.parametrize("seed", range(4))
def test_loss_repetition_and_reordering_cost_what_the_wire_lost_and_nothing_comes_twice(seed: int) -> None:
    world = talking(seed)
    rng = world.rng

    def fate(datagram: bytes) -> list[int]:
        if rng.random() < 0.05:
            return []
        return [DELAY_NS + rng.randrange(200) * 1_000_000 for _ in range(2 if rng.random() < 0.1 else 1)]

    world.fate = fate
    talk = Talk(world, 0.25)
    talk.go_on(600)
    for name in RELAYED:
        arrived = talk.arrived(name)
        assert len(arrived) == len(set(arrived))
        missing = talk.sent - len(arrived)
        gone = len(world.lost) + sum(node.drops[Drop.TUNNEL_RELAY_NO_SESSION] for node in world.nodes.values())
        gone += world.nodes[RELAYED[name]].drops[Drop.TUNNEL_RELAY_QUEUE]
        assert missing <= gone
        assert len(arrived) > talk.sent * 0.85


def test_a_relay_that_starts_anew_is_found_again_while_traffic_flows() -> None:
    world = talking()
    talk = Talk(world)
    talk.go_on(20)
    relay = world.nodes["relay"]
    world.restart(relay, *(peer_of(name, known=False) for name in ("alice", "bob", "mallory")))
    talk.go_on(40)
    for name in RELAYED:
        assert max(talk.arrived(name)) == talk.sent, name
        assert len(talk.arrived(name)) >= talk.sent - 25


def test_a_relay_that_starts_anew_hears_of_silent_nodes_within_four_minutes() -> None:
    world = talking()
    world.run(30)
    learned = [peer_of(name, known=False) for name in ("alice", "bob", "mallory")]
    world.restart(world.nodes["relay"], *learned)
    world.run(240)
    assert arrives(world, 1)


@pytest.mark.parametrize("seed", range(2))
def test_four_hours_of_loss_restarts_and_roaming_end_with_everything_in_order(seed: int) -> None:
    """Every ten minutes one of the three starts anew or moves, while 3% are lost, repeated or late by up to 0.3 s."""
    world = talking(seed, persistent_keepalive_s=25)
    rng = world.rng
    learned = [peer_of(name, known=False, persistent_keepalive_s=25) for name in ("alice", "bob", "mallory")]

    def fate(datagram: bytes) -> list[int]:
        late = rng.randrange(300) * 1_000_000 if rng.random() < 0.03 else 0
        return [] if rng.random() < 0.03 else [DELAY_NS + late] * (2 if rng.random() < 0.03 else 1)

    world.fate = fate
    talk = Talk(world, 5)
    for number in range(24):
        who = rng.choice(("alice", "bob", "relay"))
        if who == "relay":
            world.restart(world.nodes[who], *learned)
        elif rng.random() < 0.5:
            world.roam(world.nodes[who], f"203.0.113.{100 + number}")
        else:
            world.restart(world.nodes[who], *star_peers(who, persistent_keepalive_s=25))
        talk.go_on(60)
        for name in RELAYED:
            assert max(talk.arrived(name)) > talk.sent - 5, (number, who)
        talk.go_on(540)
    for name in RELAYED:
        arrived = talk.arrived(name)
        assert len(arrived) == len(set(arrived))
        assert len(arrived) > talk.sent * 0.85
    named = [
        (line.by, line.datagram[4:16]) for line in world.log if line.kind in (MessageKind.DATA, MessageKind.RELAYED)
    ]
    assert len(set(named)) == len(named)


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_an_end_that_starts_anew_goes_on_while_traffic_flows(who: str) -> None:
    world = talking()
    talk = Talk(world)
    talk.go_on(20)
    world.restart(world.nodes[who], *star_peers(who))
    talk.go_on(40)
    assert max(talk.arrived(who)) == talk.sent
    assert max(talk.arrived(RELAYED[who])) == talk.sent


def test_both_ends_may_start_anew_at_once() -> None:
    world = talking()
    for name in RELAYED:
        world.restart(world.nodes[name], *star_peers(name))
    world.run(1)
    assert arrives(world, 1)
    assert arrives(world, 2, "bob")


def test_what_comes_before_the_far_node_is_there_is_dropped_by_the_relay_and_repeated_by_its_sender() -> None:
    world = star()
    world.send(world.nodes["alice"], "bob", inner())
    world.run(6)
    assert world.nodes["relay"].drops == {Drop.TUNNEL_RELAY_NO_SESSION: 1}
    assert world.nodes["bob"].packets == [("alice", inner())]


def test_a_node_that_roams_is_followed_by_the_relay_alone() -> None:
    world = talking()
    talk = Talk(world)
    talk.go_on(5)
    world.roam(world.nodes["alice"], "203.0.113.50")
    moved = world.nodes["bob"].happened(Happening.MOVED)
    talk.go_on(5)
    for name in RELAYED:
        assert talk.arrived(name)[-1] == talk.sent
        assert len(talk.arrived(name)) >= talk.sent - 1
    assert endpoint_of(world.nodes["relay"], "alice", world.now) == world.nodes["alice"].home
    assert world.nodes["bob"].happened(Happening.MOVED) == moved
    assert endpoint_of(world.nodes["bob"], "alice", world.now) == Endpoint(node_id("alice"), 0, "relay")


def test_a_relay_that_roams_is_followed_by_its_nodes() -> None:
    world = talking()
    talk = Talk(world)
    talk.go_on(5)
    relay = world.nodes["relay"]
    world.roam(relay, "203.0.113.60")
    for name in ("alice", "bob"):  # it notices, and says something from where it is now
        world.carry(relay, relay.tunnel.call(name, world.now))
    talk.go_on(10)
    for name in RELAYED:
        assert talk.arrived(name)[-1] == talk.sent
        assert endpoint_of(world.nodes[name], "relay", world.now) == relay.home


def test_a_message_that_comes_directly_from_a_node_behind_a_relay_is_taken_and_moves_nothing() -> None:
    world = talking()
    alice, bob = world.nodes["alice"], world.nodes["bob"]
    [wrapped] = bob.tunnel.send("alice", [inner(mark=9)], world.now).datagrams
    direct = Received(wrapped.data[ENVELOPE_BYTES:], bob.home)
    effects = alice.tunnel.receive([direct], world.now)
    assert effects.packets == [("bob", inner(mark=9))]
    assert endpoint_of(alice, "bob", world.now) == BOB_BEHIND_RELAY
    world.run(10)
    [wrapped] = bob.tunnel.call("alice", world.now).datagrams
    effects = alice.tunnel.receive([Received(wrapped.data[ENVELOPE_BYTES:], bob.home)], world.now)
    assert [(one.endpoint, kind_of(one.data)) for one in effects.datagrams] == [(HOMES["relay"], MessageKind.RELAYED)]
    assert endpoint_of(alice, "bob", world.now) == BOB_BEHIND_RELAY
    alice.tunnel.set_endpoint("bob", bob.home, world.now)
    assert endpoint_of(alice, "bob", world.now) == BOB_BEHIND_RELAY


def test_under_load_a_relayed_caller_proves_its_id_with_a_cookie() -> None:
    world = star()
    alice, bob = world.nodes["alice"], world.nodes["bob"]
    world.run(6)
    flood = [Received(datagram, HOMES["carol"]) for datagram in initiations(LOAD_HANDSHAKES + 2)]
    world.carry(bob, bob.tunnel.receive(flood, world.now))
    world.carry(alice, alice.tunnel.call("bob", world.now))
    world.run(0.1)
    assert alice.happened(Happening.SESSION) == 1  # the relay's
    assert bob.drops[Drop.TUNNEL_COOKIE_SENT] >= 2
    assert alice.drops[Drop.TUNNEL_COOKIE] == 0
    for _ in range(5):
        world.run(1)
        world.carry(bob, bob.tunnel.receive(flood, world.now))
    world.run(0.5)
    assert alice.happened(Happening.SESSION) == 2


def initiations(number: int) -> list[bytes]:
    """Of somebody who knows Bob's key and is no peer of his."""
    stranger = World(9).add("carol", peer_of("bob"))
    [one] = stranger.tunnel.call("bob", 0).datagrams
    return [one.data] * number


# Chains


def chain(*relays: str) -> World:
    """Alice, the relays one behind the other, Bob; each says of the others which neighbour leads there."""
    world = World()
    names = ["alice", *relays, "bob"]
    for at, name in enumerate(names):
        peers = []
        for other_at, other in enumerate(names):
            if other_at == at:
                continue
            neighbour = names[at + (1 if other_at > at else -1)]
            peers.append(peer_of(other, via="" if neighbour == other else neighbour))
        world.add(name, *peers)
    return world


def test_two_relays_in_a_row_pass_everything_and_add_one_envelope() -> None:
    world = chain("relay", "second")
    assert arrives(world, 1)
    assert arrives(world, 2, "bob")
    start = len(world.log)
    assert arrives(world, 3)
    lines = [line for line in world.log[start:] if line.kind is MessageKind.RELAYED]
    assert [line.by for line in lines] == ["alice", "relay", "second"]
    assert len({len(line.datagram) for line in lines}) == 1


def test_a_chain_may_be_as_long_as_the_hop_limit() -> None:
    names = ["relay", "second", "third", "carol", "mallory"]
    assert arrives(chain(*names[:HOPS]), 1)
    world = chain(*names[: HOPS + 1])
    assert not arrives(world, 1)
    assert world.nodes[names[HOPS]].drops[Drop.TUNNEL_RELAY_HOPS] >= 1


def test_via_a_peer_that_is_reached_via_another_begins_at_the_last() -> None:
    """The same chain, with Alice naming the relay next to Bob instead of her neighbour."""
    world = chain("relay", "second")
    alice = world.nodes["alice"].tunnel
    alice.set_peers([peer_of("relay"), peer_of("second", via="relay"), peer_of("bob", via="second")], world.now)
    assert alice.status(world.now)[2].endpoint == BOB_BEHIND_RELAY
    assert arrives(world, 1)
    assert arrives(world, 2, "bob")


# The operator


@pytest.mark.parametrize(
    ("peers", "role", "words"),
    [
        ([peer_of("bob", via="relay")], Role("alice"), "bob via relay leads nowhere"),
        ([peer_of("bob", via="bob")], Role("alice"), "bob via bob leads nowhere"),
        ([peer_of("bob", via="relay"), peer_of("relay", via="bob")], Role("alice"), "bob via relay via bob leads"),
        ([peer_of("bob", via="relay"), peer_of("relay")], Role(), "without a name"),
        ([peer_of("relay")], Role("relay"), "the names relay and relay have the same id"),
    ],
)
def test_an_impossible_way_is_refused_and_nothing_changes(peers: list[PeerConfig], role: Role, words: str) -> None:
    world = talking()
    alice = world.nodes["alice"].tunnel
    with pytest.raises(ValueError, match=words):
        alice.set_peers(peers, world.now, role)
    assert arrives(world, 5)


def test_two_names_with_one_id_are_found() -> None:
    assert same_id(["home", "hk", "sg"]) is None
    assert same_id(["home", "hk", "sg"], id_of=lambda name: name[:1].encode()) == ("home", "hk")
    assert len({node_id(f"node{number}") for number in range(20_000)}) == 20_000


def set_peers(world: World, name: str, *peers: PeerConfig, role: Role | None = None) -> Effects:
    node = world.nodes[name]
    return world.carry(node, node.tunnel.set_peers(peers, world.now, role))


def test_a_reload_moves_a_peer_behind_a_relay_and_back_without_a_new_handshake() -> None:
    world = talking()
    before = {name: world.nodes[name].happened(Happening.SESSION) for name in RELAYED}
    for name, other in RELAYED.items():
        set_peers(world, name, peer_of("relay"), peer_of(other))
    assert arrives(world, 1)
    assert world.log[-1].kind is MessageKind.DATA
    for name in RELAYED:
        set_peers(world, name, *star_peers(name))
    assert arrives(world, 2)
    assert world.log[-1].kind is MessageKind.RELAYED
    assert {name: world.nodes[name].happened(Happening.SESSION) for name in RELAYED} == before


def test_a_peer_that_loses_its_relay_and_has_no_endpoint_is_silent_until_it_calls() -> None:
    world = talking()
    alice = world.nodes["alice"]
    assert arrives(world, 1, "bob")  # she owes an answer by now
    set_peers(world, "alice", peer_of("relay"), peer_of("bob", known=False))
    world.run(200)
    assert endpoint_of(alice, "bob", world.now) is None
    assert world.send(alice, "bob", inner()).drops == {Drop.TUNNEL_NO_ENDPOINT: 1}
    set_peers(world, "bob", peer_of("relay"), peer_of("alice"))
    assert arrives(world, 2, "bob")
    assert arrives(world, 3)


def test_what_waits_for_a_peer_that_loses_its_relay_does_not_wait_for_its_call() -> None:
    world = star()
    alice = world.nodes["alice"]
    world.fate = lambda datagram: []
    world.send(alice, "bob", inner(mark=1), inner(mark=2))
    set_peers(world, "alice", peer_of("relay"), peer_of("bob", known=False))
    assert alice.unsent == [Unsent("bob", inner(mark=mark), Drop.TUNNEL_NO_ENDPOINT) for mark in (1, 2)]
    assert [status.staged for status in alice.tunnel.status(world.now)] == [0, 0]


def test_a_reload_may_take_the_relay_away_while_datagrams_wait_for_it() -> None:
    world = star()
    alice = world.nodes["alice"]
    world.send(alice, "bob", inner())
    effects = set_peers(world, "alice", peer_of("bob"))
    assert effects.drops == {Drop.TUNNEL_RELAY_QUEUE: 1}
    world.run(30)
    assert not alice.tunnel._relaying._held


def test_a_node_may_get_another_relay() -> None:
    world = talking()
    world.add("second", *(peer_of(name, known=False) for name in RELAYED))
    for name, other in RELAYED.items():
        set_peers(world, name, peer_of("relay"), peer_of("second"), peer_of(other, via="second"))
    world.run(1)
    start = len(world.log)
    assert arrives(world, 1)
    assert not [line for line in world.log[start:] if line.by == "relay" and line.kind is MessageKind.RELAYED]


def test_relaying_is_switched_off_and_on_by_a_reload() -> None:
    world = talking()
    learned = [peer_of(name, known=False) for name in ("alice", "bob", "mallory")]
    set_peers(world, "relay", *learned, role=Role("relay", relays=False))
    assert not arrives(world, 1)
    assert world.nodes["relay"].drops == {Drop.TUNNEL_RELAY_OFF: 1}
    set_peers(world, "relay", *learned, role=Role("relay"))
    assert arrives(world, 2)
