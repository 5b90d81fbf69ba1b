"""The path to a peer: who is believed, what is probed, and when it is used again."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunnel_world import DELAY_NS, HOMES, ROUTER, Node, Sent, World, connected, inner, pair, peer_of

from tunnel.control import ControlKind, ControlMessage
from tunnel.effects import Endpoint, Happening, PathState, PeerEvent, Received, TooBig, Unsent
from tunnel.messages import DATA_HEADER, MessageKind
from tunnel.pathmtu import AGE_NS, PAUSE_NS, PathLimits, PathMtu, Probe, direct_limits
from tunnel.session import RECENT_PACKETS
from wire.drop import Drop
from wire.units import SECOND_NS, seconds_ns

BOB = HOMES["bob"].address
LIMIT, NARROW = 1420, 1280 - 60
MINUTE_PROBES = 35
"""A round that fails and its whole search; there is one in ten minutes."""


def narrow(*, silent: bool = False, plain: bool = False, width: int = 1280, seed: int = 0) -> tuple[World, Node, Node]:
    """Alice and Bob with a session; the path to Bob carries `width` outer bytes."""
    world, alice, bob = pair(seed)
    world.widths[BOB] = width
    world.is_silent = silent
    world.plain = {"bob"} if plain else set()
    world.send(alice, "bob", inner())
    world.run(0.9)
    return world, alice, bob


def busy(world: World, alice: Node, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Small packets every 5 s, so that there is always a session."""
    end = world.now + seconds_ns(seconds)
    while world.now < end and not until():
        world.send(alice, "bob", inner())
        world.run(min(5 * SECOND_NS, end - world.now) / SECOND_NS)


def probes(world: World, by: str = "alice", since: float = 0.0) -> list[Sent]:
    """Probes among the data messages of a node that sends no long packets."""
    return [line for line in world.sent(by, MessageKind.DATA, since) if len(line.datagram) > 200]


def state(world: World, node: Node) -> PathState:
    return node.tunnel.status(world.now)[0].path


def quote_of(node: Node, *, receiver: int | None = None, ahead: int = 0, head: int = 4, size: int = 48) -> bytes:
    """The beginning of the last data message that a node sent under its newest session, or of a forged one."""
    session = max(node.tunnel._indices.sessions.values(), key=lambda session: session.created_ns)
    index = session.remote if receiver is None else receiver
    counter = (session.counter - 1 + ahead) % (1 << 64)
    return (DATA_HEADER.pack(head, index, counter) + bytes(1400))[:size]


def too_big(node: Node, mtu_bytes: int = 1280, endpoint: Endpoint = HOMES["bob"], **forged: int) -> TooBig:
    return TooBig(endpoint, mtu_bytes, quote_of(node, **forged), ROUTER)


# Routers that say what passes


@pytest.mark.parametrize("plain", [False, True], ids=["a node", "another WireGuard peer"])
def test_q3_a_router_on_the_path_lowers_the_tunnel_s_mtu(plain: bool) -> None:
    """Q3, W28: after one packet that did not pass, none that is too long leaves any more."""
    world, alice, bob = narrow(plain=plain)
    alice.events.clear()
    if world.mtu(alice, "bob") == LIMIT:
        world.send(alice, "bob", inner(LIMIT))
        world.run(0.1)
        assert alice.events == [PeerEvent(Happening.MTU, "bob")]
    assert world.mtu(alice, "bob") == NARROW
    assert state(world, alice) is PathState.LOWERED
    bob.packets.clear()
    effects = world.send(alice, "bob", inner(NARROW + 1, mark=1), inner(NARROW, mark=2))
    assert effects.unsent == [Unsent("bob", inner(NARROW + 1, mark=1), Drop.TUNNEL_TOO_BIG)]
    assert [len(datagram.data) + 28 for datagram in effects.datagrams] == [1280]
    world.run(0.1)
    assert bob.packets == [("alice", inner(NARROW, mark=2))]


@pytest.mark.parametrize(("size", "outer"), [(1200, 1260), (1209, 1276), (1217, 1280), (1220, 1280)])
def test_w21_padding_ends_at_the_mtu_of_the_path(size: int, outer: int) -> None:
    world, alice, _ = narrow()
    assert [len(datagram.data) + 28 for datagram in world.send(alice, "bob", inner(size)).datagrams] == [outer]


FORGED: dict[str, Callable[[Node], TooBig]] = {
    "another index": lambda node: too_big(node, receiver=0x12345678),
    "a counter to come": lambda node: too_big(node, ahead=1),
    "a counter of a day to come": lambda node: too_big(node, ahead=1 << 40),
    "a counter below zero": lambda node: too_big(node, ahead=-(1 << 20)),
    "a handshake": lambda node: too_big(node, head=1),
    "reserved bytes": lambda node: too_big(node, head=0x104),
    "half an index": lambda node: too_big(node, size=6),
    "half a counter": lambda node: too_big(node, size=15),
    "nothing": lambda node: too_big(node, size=0),
    "another address": lambda node: too_big(node, endpoint=HOMES["carol"]),
    "another port": lambda node: too_big(node, endpoint=HOMES["bob"]._replace(port=9)),
    "IPv6": lambda node: too_big(node, endpoint=Endpoint(bytes(16), 51820)),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
def test_q3_what_quotes_nothing_that_we_sent_is_not_believed(forged: Callable[[Node], TooBig]) -> None:
    """Q3, Q4: not even where all of it but one thing is right."""
    world, alice, _ = connected()
    before = alice.drops[Drop.TUNNEL_SIGNAL]
    world.signal(alice, *[forged(alice)._replace(mtu_bytes=mtu) for mtu in (0, 68, 576, 1280, 1479)])
    world.run(1)
    assert world.mtu(alice, "bob") == LIMIT
    assert alice.drops[Drop.TUNNEL_SIGNAL] == before + 5
    world.signal(alice, too_big(alice))
    assert world.mtu(alice, "bob") == NARROW


def test_q3_an_old_counter_and_an_old_session_are_not_believed() -> None:
    world, alice, _ = connected()
    session = next(iter(alice.tunnel._indices.sessions.values()))
    session.counter = RECENT_PACKETS + 5
    world.signal(alice, too_big(alice, ahead=-RECENT_PACKETS))
    assert world.mtu(alice, "bob") == LIMIT
    late = too_big(alice)
    world.run(181)
    world.signal(alice, late)
    assert world.mtu(alice, "bob") == LIMIT, "the session is over"
    world.restart(alice, peer_of("bob"))
    world.send(alice, "bob", inner())
    world.run(1)
    world.signal(alice, late)
    assert world.mtu(alice, "bob") == LIMIT, "it is none of this run"


def test_q3_a_packet_under_the_previous_session_may_still_be_quoted() -> None:
    world, alice, _ = connected()
    late = too_big(alice)
    busy(world, alice, 125)
    assert len(world.sent("alice", MessageKind.INITIATION)) == 2
    world.signal(alice, late)
    assert world.mtu(alice, "bob") == NARROW


@pytest.mark.parametrize(("told", "used"), [(575, 516), (68, 516), (1, 516), (0, 1220), (577, 517), (1479, 1419)])
def test_q3_q4_nothing_below_576_is_believed(told: int, used: int) -> None:
    """Q3, Q4: and a router that does not say how long is too long is taken for the next plateau of RFC 1191."""
    world, alice, _ = connected()
    world.signal(alice, too_big(alice, told))
    assert world.mtu(alice, "bob") == used


def test_q3_nothing_below_1280_is_believed_of_ipv6() -> None:
    path = PathMtu(direct_limits(Endpoint(bytes(16), 1), 1420), random.Random(0).randrange)
    path.told(1279, 0)
    assert path.mtu_bytes == 1200
    path.told(100, 0)
    assert path.mtu_bytes == 1200


@pytest.mark.parametrize("told", [1480, 1500, 9000, 65_535])
def test_q3_what_passes_anyway_changes_nothing(told: int) -> None:
    world, alice, _ = connected()
    world.signal(alice, too_big(alice, told))
    assert (world.mtu(alice, "bob"), state(world, alice)) == (LIMIT, PathState.CONFIRMED)


def test_our_own_kernel_is_believed_without_a_quote() -> None:
    world, alice, _ = connected()
    world.signal(alice, TooBig(HOMES["bob"], 1400, b"", b""))
    assert world.mtu(alice, "bob") == 1340


def test_a_storm_of_hints_brings_about_a_round_a_minute_and_lowers_nothing() -> None:
    """Q3: anybody can make up the eight bytes behind an IP header."""
    world, alice, _ = connected()
    for _ in range(600):
        if not world.seconds % 5:
            world.send(alice, "bob", inner())
        world.signal(alice, *[too_big(alice, 576, size=0)] * 20)
        world.run(1)
    assert world.mtu(alice, "bob") == LIMIT
    assert alice.happened(Happening.MTU) == 0
    assert len(probes(world)) <= 17  # one a minute, one with each session
    assert all(len(line.datagram) + 28 == LIMIT + 60 for line in probes(world))


def test_a_hint_of_a_path_that_swallows_finds_it_at_once() -> None:
    world, alice, _ = connected()
    busy(world, alice, 70)
    world.widths[BOB], world.is_silent = 1280, True
    world.signal(alice, too_big(alice, size=0))
    world.run(10)
    assert world.mtu(alice, "bob") == NARROW


# Paths that lose long packets in silence


@pytest.mark.parametrize("width", [1280, 1300, 1400, 1452, 1476, 1479, 1000, 576])
def test_a_black_hole_is_found_and_measured_between_nodes(width: int) -> None:
    """Q6, W28: RFC 8899: within 4 s what is used passes, soon after it is the most that passes."""
    world, alice, bob = narrow(silent=True, width=width)
    world.run(3.2)
    assert world.mtu(alice, "bob") + 60 <= width
    assert state(world, alice) in (PathState.SEARCHING, PathState.CONFIRMED)
    world.run(30)
    assert width - 4 < world.mtu(alice, "bob") + 60 <= width
    assert state(world, alice) is PathState.CONFIRMED
    assert world.mtu(bob, "alice") == LIMIT, "the other direction is another path"
    assert len(probes(world)) <= MINUTE_PROBES
    bob.packets.clear()
    world.send(alice, "bob", inner(world.mtu(alice, "bob")))
    world.run(0.1)
    assert len(bob.packets) == 1


def test_a_black_hole_that_begins_later_is_found_with_the_next_session() -> None:
    world, alice, _ = connected()
    busy(world, alice, 50)
    assert state(world, alice) is PathState.CONFIRMED
    world.widths[BOB], world.is_silent = 1280, True
    busy(world, alice, 80)
    assert world.mtu(alice, "bob") == NARROW
    assert world.seconds < 135


def test_lost_probes_alone_lower_nothing() -> None:
    """Everything is lost for a while: that says nothing about sizes."""
    world, alice, _ = connected()
    busy(world, alice, 115)
    world.fate = lambda datagram: [] if len(datagram) > 150 or len(datagram) in (32, 48) else [DELAY_NS]
    busy(world, alice, 60)
    world.fate = lambda datagram: [DELAY_NS]
    busy(world, alice, 60)
    assert world.mtu(alice, "bob") == LIMIT
    assert alice.happened(Happening.MTU) == 0


def test_two_losses_of_a_probed_size_are_not_enough() -> None:
    world, alice, _ = pair()
    lost: list[bytes] = []

    def fate(datagram: bytes) -> list[int]:
        if len(datagram) == LIMIT + 32 and len(lost) < 2:
            lost.append(datagram)
            return []
        return [DELAY_NS]

    world.fate = fate
    world.send(alice, "bob", inner())
    world.run(20)
    assert len(lost) == 2
    assert alice.happened(Happening.MTU) == 0
    assert state(world, alice) is PathState.CONFIRMED


@pytest.mark.parametrize("seed", range(3))
def test_an_hour_of_five_per_cent_loss_on_a_wide_path_lowers_nothing(seed: int) -> None:
    world, alice, _ = pair(seed)
    dice = random.Random(seed)
    world.fate = lambda datagram: [] if dice.random() < 0.05 else [DELAY_NS]
    busy(world, alice, 3600)
    assert alice.happened(Happening.MTU) == 0


def test_answers_later_than_we_wait_still_count() -> None:
    world, alice, _ = pair()
    world.fate = lambda datagram: [1_200_000_000]
    world.send(alice, "bob", inner())
    world.run(30)
    assert alice.happened(Happening.MTU) == 0
    assert state(world, alice) is PathState.CONFIRMED


def test_another_wireguard_peer_is_asked_a_few_times_an_hour() -> None:
    world, alice, _ = narrow(plain=True, width=1500)
    busy(world, alice, 3500)
    assert len(probes(world)) == 9
    assert all(line.at < 5 for line in probes(world))
    assert (world.mtu(alice, "bob"), state(world, alice)) == (LIMIT, PathState.ASSUMED)
    busy(world, alice, 300)
    assert len(probes(world)) == 18


def test_a_peer_that_begins_to_speak_is_probed_at_once_and_one_that_stops_is_left_alone() -> None:
    world, alice, bob = narrow(plain=True, width=1500)
    busy(world, alice, 50)
    world.plain = set()
    world.carry(bob, bob.tunnel.tick(world.now))
    busy(world, alice, 130)  # Bob's next session makes him probe, and so Alice hears that he speaks
    assert state(world, alice) is PathState.CONFIRMED
    world.plain = {"bob"}
    busy(world, alice, 1000)
    before = len(probes(world))
    busy(world, alice, 1000)
    assert len(probes(world)) == before


def test_probes_are_no_data_for_the_timers_of_the_protocol() -> None:
    """W11, W12: probes that are lost call for no handshake, and keepalives are sent as if there were none."""
    world, _, _ = narrow(silent=True, plain=True)
    world.run(100)
    assert len(world.sent("alice", MessageKind.INITIATION)) == 1
    assert len(probes(world)) == 9
    world, _, _ = narrow(silent=True)
    world.run(100)
    assert len(world.sent("alice", MessageKind.INITIATION)) == 1
    assert [round(line.at) for line in world.keepalives("bob")] == [10]


def test_an_answer_that_nobody_asked_for_changes_nothing() -> None:
    """A peer can lower its own path by silence, and can raise nothing."""
    world, alice, bob = narrow()
    for number in range(200):
        answer = ControlMessage(ControlKind.PROBED, number).packed()
        for datagram in bob.tunnel.send("alice", [answer], world.now).datagrams:
            world.carry(alice, alice.tunnel.receive([Received(datagram.data, bob.home)], world.now))
    assert world.mtu(alice, "bob") == NARROW


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_two_nodes_whose_first_probes_are_too_big_both_ways_find_out_that_they_speak(who: str) -> None:
    world, alice, bob = pair()
    world.widths = {home.address: 1280 for home in HOMES.values()}
    world.send(alice, "bob", inner())
    busy(world, alice, 30)
    node, other = {"alice": (alice, "bob"), "bob": (bob, "alice")}[who]
    assert (world.mtu(node, other), state(world, node)) == (NARROW, PathState.CONFIRMED)


def test_shorter_probes_never_leave_in_one_piece_behind_a_longer_one() -> None:
    """A super-frame that is too long for a router is lost as a whole."""
    world, alice, _ = narrow(silent=True)
    made: list[list[int]] = []
    for _ in range(4):
        world.now = max(world.now, alice.tunnel.next_deadline() or 0)
        made.append([len(datagram.data) for datagram in world.carry(alice, alice.tunnel.tick(world.now)).datagrams])
    assert [1452, 1452] in [sizes[-2:] for sizes in made]
    assert all(sizes == sorted(sizes) for sizes in made)


# Time and movement


def test_q5_a_lowered_mtu_is_used_again_after_ten_minutes_and_not_before() -> None:
    """Q5: towards a peer that cannot be probed, RFC 1191 6.3."""
    world, alice, _ = narrow(plain=True)
    world.send(alice, "bob", inner(LIMIT))
    world.run(0.1)
    lowered = world.seconds
    world.widths[BOB] = 1500
    busy(world, alice, 598)
    assert world.mtu(alice, "bob") == NARROW
    busy(world, alice, lowered + 600.1 - world.seconds)
    assert world.mtu(alice, "bob") == LIMIT
    world.widths[BOB] = 1280
    world.send(alice, "bob", inner(LIMIT))
    world.run(0.1)
    assert world.mtu(alice, "bob") == NARROW, "and the next router lowers it again"
    busy(world, alice, 599)
    assert world.mtu(alice, "bob") == NARROW


@pytest.mark.parametrize("silent", [False, True], ids=["told", "in silence"])
def test_q5_a_path_that_grows_is_probed_and_used(silent: bool) -> None:
    """Q5: and what did not grow is not used, not even for a moment."""
    world, alice, _ = narrow(silent=silent)
    world.run(20)
    assert world.mtu(alice, "bob") == NARROW
    busy(world, alice, 1300)
    assert {event.what for event in alice.events if event.what is Happening.MTU}
    assert world.mtu(alice, "bob") == NARROW
    before, changes = len(probes(world)), alice.happened(Happening.MTU)
    world.widths[BOB] = 1400
    busy(world, alice, 640, lambda: world.mtu(alice, "bob") == 1340)
    assert world.mtu(alice, "bob") == 1340
    world.widths[BOB] = 1500
    busy(world, alice, 640, lambda: world.mtu(alice, "bob") == LIMIT)
    assert (world.mtu(alice, "bob"), state(world, alice)) == (LIMIT, PathState.CONFIRMED)
    assert alice.happened(Happening.MTU) - changes <= 8
    assert len(probes(world)) - before <= 3 * MINUTE_PROBES


def test_another_address_is_another_path_and_another_port_is_not() -> None:
    world, alice, bob = narrow()
    assert world.mtu(alice, "bob") == NARROW
    world.roam(bob, "192.0.2.2", 5000)
    world.send(bob, "alice", inner(source="10.0.0.2"))
    world.run(0.1)
    assert alice.happened(Happening.MOVED) == 1
    assert world.mtu(alice, "bob") == NARROW
    world.roam(bob, "192.0.2.99")
    world.send(bob, "alice", inner(source="10.0.0.2"))
    world.run(0.1)
    assert world.mtu(alice, "bob") == LIMIT
    world.run(15)
    assert state(world, alice) is PathState.CONFIRMED


def test_a_peer_that_moves_with_every_packet_is_probed_every_ten_seconds_at_most() -> None:
    world, _, bob = connected()
    since = world.seconds
    for number in range(300):
        world.roam(bob, f"192.0.2.{100 + number % 2}")
        world.widths = {bytes([192, 0, 2, 100]): 1280}
        world.send(bob, "alice", inner(source="10.0.0.2"))
        world.run(0.2)
    rounds = (world.seconds - since) / 10 + 1
    assert len(probes(world, since=since)) <= 9 * rounds


def test_a_restart_begins_with_the_limit_and_finds_the_path_again() -> None:
    world, alice, _ = narrow(silent=True)
    world.run(5)
    assert world.mtu(alice, "bob") < LIMIT
    world.restart(alice, peer_of("bob"))
    assert world.mtu(alice, "bob") == LIMIT
    world.send(alice, "bob", inner())
    world.run(5)
    assert world.mtu(alice, "bob") == NARROW


def test_a_peer_that_restarts_is_still_behind_the_same_path() -> None:
    world, alice, bob = narrow()
    world.restart(bob, peer_of("alice"))
    busy(world, alice, 60)
    assert len(world.sent("alice", MessageKind.INITIATION)) == 2
    assert world.mtu(alice, "bob") == NARROW


def test_what_waited_for_the_session_and_has_become_too_long_comes_back() -> None:
    world, alice, bob = narrow()
    world.run(200)
    bob.packets.clear()
    alice.unsent.clear()
    world.send(alice, "bob", inner(1100, mark=1))
    alice.tunnel._by_name["bob"].path.told(1100, world.now)
    world.run(0.5)
    assert alice.unsent == [Unsent("bob", inner(1100, mark=1), Drop.TUNNEL_TOO_BIG)]
    assert bob.packets == []
    assert len(world.keepalives("alice", 200)) == 1, "the new session is confirmed all the same"


def test_a_tunnel_without_packets_is_not_kept_alive_by_probes() -> None:
    world, _, _ = narrow(silent=True)
    world.run(4000)
    assert {line.at < 60 for line in world.log} == {True}


# Relays


def test_behind_a_relay_packets_are_shorter_and_never_longer_than_the_relay_s_path() -> None:
    world = World()
    there = Endpoint(bytes(16), 0, "carol")
    carol = peer_of("carol")
    alice = world.add("alice", peer_of("bob", endpoint=there), carol)
    world.add("carol", peer_of("alice", known=False))
    assert (world.mtu(alice, "carol"), world.mtu(alice, "bob")) == (1420, 1368)
    world.widths[HOMES["carol"].address] = 1280
    world.send(alice, "carol", inner())
    world.run(1)
    assert (world.mtu(alice, "carol"), world.mtu(alice, "bob")) == (1220, 1168)
    world.widths.clear()
    for _ in range(130):
        world.send(alice, "carol", inner())
        world.run(5)
    assert (world.mtu(alice, "carol"), world.mtu(alice, "bob")) == (1420, 1368)
    world.carry(alice, alice.tunnel.set_mtu(1300, world.now))
    assert (world.mtu(alice, "carol"), world.mtu(alice, "bob")) == (1300, 1248)


def test_a_name_that_leads_to_a_relay_elsewhere_is_another_way_for_all_behind_it() -> None:
    world = World()
    alice = world.add("alice", peer_of("bob", known=False, via="carol"), peer_of("carol"))
    world.add("carol", peer_of("alice", known=False))
    world.widths[HOMES["carol"].address] = 1280
    world.send(alice, "carol", inner())
    world.run(1)
    assert (world.mtu(alice, "carol"), world.mtu(alice, "bob")) == (1220, 1168)
    done = world.carry(alice, alice.tunnel.set_endpoint("carol", Endpoint(bytes(15) + b"\x01", 51820), world.now))
    assert (world.mtu(alice, "carol"), world.mtu(alice, "bob")) == (1420, 1368)
    assert sorted(done.events) == [PeerEvent(Happening.MTU, "bob"), PeerEvent(Happening.MTU, "carol")]
    kernel = TooBig(Endpoint(bytes(15) + b"\x01", 51820), 1400, b"", b"")
    world.signal(alice, kernel)  # 80 bytes around a packet for Carol, 52 more around one for Bob
    assert (world.mtu(alice, "carol"), world.mtu(alice, "bob")) == (1320, 1268)


# Whatever happens

INPUTS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(0, 700)),
        st.tuples(st.just("told"), st.integers(0, 1600)),
        st.tuples(st.just("answered"), st.integers(0, 40)),
        st.tuples(st.just("width"), st.integers(500, 1600)),
        st.tuples(st.sampled_from(["hinted", "session", "spoken", "probe"]), st.just(0)),
    ),
    max_size=60,
)


@given(INPUTS)
def test_q5_whatever_comes_in_nothing_is_used_beyond_what_was_told_for_ten_minutes(
    inputs: list[tuple[str, int]],
) -> None:
    """Q5, Q3: and sizes stay between floor and limit, deadlines in the future, probes few."""
    numbers = iter(range(1 << 20))
    path = PathMtu(PathLimits(LIMIT), lambda: next(numbers))
    now = 0
    width = 1500
    sent: list[tuple[int, Probe]] = []
    told: list[tuple[int, int]] = []

    def fire() -> None:
        made = path.tick(now, can_probe=True)
        assert path.due_ns > now
        sent.extend((now, probe) for probe in made)
        for probe in made:
            assert 516 <= probe.size_bytes <= LIMIT
            if probe.size_bytes + 60 <= width:
                path.answered(probe.number, now)
        if path.due_ns <= now:
            fire()

    for what, value in inputs:
        if what == "wait":
            end = now + value * SECOND_NS // 7
            while path.due_ns <= end:
                now = max(now, path.due_ns)
                fire()
            now = end
        elif what == "told":
            before = path.mtu_bytes
            path.told(value, now)
            if path.mtu_bytes < before:
                told.append((now, path.mtu_bytes))
        elif what == "answered":
            path.answered(value, now)
        elif what == "width":
            width = value
        elif what == "probe":
            fire()
        else:
            getattr(path, what)(now)
        assert 516 <= path.mtu_bytes <= LIMIT
        assert all(path.mtu_bytes <= size for at, size in told if now - at < AGE_NS)
    for at, _ in sent:
        assert sum(at <= other < at + PAUSE_NS for other, _ in sent) <= 2 * MINUTE_PROBES


@given(
    st.lists(st.tuples(st.integers(576, 1600), st.integers(1, 1420), st.integers(0, 90)), max_size=15), st.booleans()
)
def test_no_datagram_is_longer_than_the_path_is_believed_to_be(steps: list[tuple[int, int, int]], silent: bool) -> None:
    """W28: but for probes, which only `tick` sends."""
    world, alice, _ = pair()
    world.is_silent = silent
    for width, size, wait in steps:
        world.widths[BOB] = width
        believed = world.mtu(alice, "bob") + 32
        for effects in (world.send(alice, "bob", inner(size)), alice.tunnel.send("bob", [inner(size)] * 3, world.now)):
            assert all(len(datagram.data) <= believed for datagram in effects.datagrams)
        world.run(wait)
