"""A decision that is repeated is the decision that the walk would make, whatever changes, and links live as they would.

Two gateways of one seed get the same (`trials.fuzz.targets.flow.Twins`): one repeats what its flow table knows, the
other walks every frame. `Twins` fails where they send different bytes; the tests say what changes, and which frames are
repeated.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alias.closed import FINISHED, OPEN
from bridge.walk.effects import Effect, Send
from bridge.walk.fast_path import FastPath
from bridge.walk.gateway import Gateway
from flow.plain import PlainTable
from flow.table import FORGET_S, HARVEST_S, LEASE_S, MOST_PORTS, Forwarded, Punt
from tests.bridge.walk.twin_world import ROUTER, ROUTER_TEXT, WITHOUT_STATIC, A, B, E, F, TwinWorld, learned
from tests.conformance.harness import ADDRESS_O, ARP, Ether
from trials.fuzz.targets.flow import (
    HOST,
    STATIC_ARP,
    X_TAP1,
    as_partial,
    gateway_step,
    packet,
)
from trials.fuzz.targets.frames import MACS
from wire.ethernet import ARP_TYPE, IPV4_TYPE
from wire.ipv4 import DONT_FRAGMENT, ICMP, TCP, UDP
from wire.tcp import ACK, FIN, RST, SYN
from wire.units import SECOND_NS, address_int, mac_bytes, mac_text

# What is repeated


@pytest.mark.parametrize(("source", "remote"), [*product((A, HOST), (E, F))])
def test_the_four_flows_are_repeated_in_both_directions(
    make: Callable[..., TwinWorld], source: int, remote: int
) -> None:
    world = make()
    learned(world, remote, source)
    if source == HOST and remote == F:  # which crosses the tunnel under its own address
        back = [world.put("vpn", UDP, (F, 53, HOST, 5000)) for _ in range(2)]
    else:
        back = [world.answer(remote, source=source) for _ in range(2)]
    assert back == [False, True]
    world.compare_links()


def test_super_frames_and_partial_checksums_are_repeated_as_they_came(make: Callable[..., TwinWorld]) -> None:
    world = make()
    for gso_bytes in (1400, 0, 1400):
        whole = packet(TCP, (A, 5000, E, 80), bytes(range(256)) * (40 if gso_bytes else 2), flags=DONT_FRAGMENT)
        raw, claims = as_partial(whole, gso_bytes)
        sent, repeated = world.inject("tap0", MACS["tap0"] + IPV4_TYPE + raw, claims)
        assert sent[0].gso == claims
    assert repeated


def test_a_ping_is_repeated_and_a_ping_with_its_identifier_from_outside_stays_ours(
    make: Callable[..., TwinWorld],
) -> None:
    """RFC 5508 3.1 is about replies; a request from outside is for us, also where the identifier is a link's."""
    world = make()
    assert [world.inside(ICMP, (A, 5000, E, 8)) for _ in range(2)] == [False, True]
    assert [world.answer(E, ICMP) for _ in range(2)] == [False, True]
    link = world.link(ICMP, A, 5000)
    request = packet(ICMP, (E, link.outside_port, X_TAP1, 8), b"data", flags=DONT_FRAGMENT)
    sent, repeated = world.inject("tap1", MACS["tap1"] + IPV4_TYPE + request)
    assert not repeated
    assert [send.port for send in sent] == ["tap1"], "the answer is ours, and nothing reaches the LAN"


def test_replies_from_inside_do_not_keep_a_link_alive(make: Callable[..., TwinWorld]) -> None:
    """RFC 7857 7.1."""
    world = make()
    world.inside(ICMP, (A, 5000, E, 8))
    for _ in range(10):
        assert not world.inside(ICMP, (A, 5000, E, 0))
        world.advance(5)
    world.compare_links()


@pytest.mark.parametrize(
    ("more", "data", "why"),
    [
        ({"ttl": 1}, 4, Punt.TTL),
        ({"flags": 0}, 4, Punt.IDENTIFICATION),
        ({}, 1473, Punt.TOO_BIG),
        ({"flags": 0x2000}, 8, Punt.FRAGMENT),
    ],
)
def test_the_unusual_packet_of_a_known_flow_is_walked_and_the_next_is_repeated(
    make: Callable[..., TwinWorld], more: dict[str, int], data: int, why: Punt
) -> None:
    world = make()
    once = learned(world)
    assert not world.inside(UDP, (A, 5000, E, 53), bytes(data), **more)
    assert world.punts[why] == 1
    assert once()


# Links and neighbours live on


class AnsweringRouter:
    """Lets the clock of the gateway that repeats run on, with a router behind tap1 that answers ARP requests."""

    def __init__(self, world: TwinWorld) -> None:
        self.world = world
        self.requests = 0
        self.mac = mac_bytes("02:aa:00:00:00:01")

    def advance(self, seconds: int) -> None:
        gateway, end = self.world.fast, self.world.now + seconds * SECOND_NS
        while (due := gateway.next_deadline()) is not None and due <= end:
            self.world.now = max(due, self.world.now)
            self.hear(gateway.tick(self.world.now))
        self.world.now = end

    def hear(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send) and effect.port == "tap1" and effect.frame[12:14] == ARP_TYPE:
                self.requests += 1
                reply = Ether(src=mac_text(self.mac), dst=mac_text(bytes(effect.frame[6:12]))) / ARP(
                    op=2,
                    hwsrc=mac_text(self.mac),
                    psrc=ROUTER_TEXT,
                    hwdst=mac_text(bytes(effect.frame[6:12])),
                    pdst=ADDRESS_O,
                )
                self.hear(self.world.fast.receive("tap1", bytes(reply), self.world.now))

    def sends(self) -> bool:
        """A packet of the flow, by the gateway that repeats alone; True where it was repeated."""
        world = self.world
        frame = MACS["tap0"] + IPV4_TYPE + packet(UDP, (A, 5000, E, 53), b"data", flags=DONT_FRAGMENT)
        if isinstance(world.table.forward(world.fast.fast.number("tap0"), frame, None, world.now), Forwarded):
            return True
        self.hear(world.fast.receive("tap0", frame, world.now))
        return False


def test_hits_keep_links_and_neighbours_alive_for_hours(make: Callable[..., TwinWorld]) -> None:
    world = make(WITHOUT_STATIC)
    router = AnsweringRouter(world)
    router.sends()
    link = world.link(UDP, A, 5000)
    repeated = 0
    for _ in range(1440):
        router.advance(5)
        repeated += router.sends()
        assert world.fast.arp["tap1"].lookup(ROUTER, world.now) is not None
    assert world.link(UDP, A, 5000) is link
    assert repeated > 900, "a link of questions has a brief lease"
    world.fast.fast.harvest(world.table.limit, world.now)
    assert link.packets == 1441


def test_a_hit_is_told_to_its_link_and_asks_for_its_neighbour_within_a_harvest(make: Callable[..., TwinWorld]) -> None:
    world = make(WITHOUT_STATIC)
    router = AnsweringRouter(world)
    router.sends()
    router.advance(25)
    assert not router.sends()
    link, before = world.link(UDP, A, 5000), router.requests
    router.advance(7)  # the neighbour is STALE by now, and the lease still runs
    assert router.sends()
    hit_ns = world.now
    router.advance(HARVEST_S)
    assert (link.packets, link.last_ns) == (3, hit_ns)
    router.advance(6)
    assert router.requests == before + 1, "in use and out of date: asked by unicast"


def test_a_link_that_nothing_refreshes_ends_in_the_middle_of_a_flood(make: Callable[..., TwinWorld]) -> None:
    world = make()
    learned(world)
    assert not world.inside(UDP, (A, 5000, E, 80)), "more than a question, which would end earlier"
    assert [world.answer(E) for _ in range(2)] == [False, True]
    ends = (E, 53, X_TAP1, world.link(UDP, A, 5000).outside_port)
    repeated = []
    for _ in range(320):
        world.advance(1)
        repeated.append(world.put("tap1", UDP, ends))
    assert any(repeated[250:280])
    assert not any(repeated[300 + HARVEST_S :]), "no decision outlives its link"
    assert all(link.is_static for link in world.walk.aliases.links(world.now))
    world.compare_links()


def connection(world: TwinWorld, seq: int = 1000) -> Callable[..., bool]:
    """A TCP connection that is established and known in both directions; what comes back sends a segment."""

    def segment(from_inside: bool, flags: int = ACK, **more: Any) -> bool:
        if from_inside:
            return world.inside(TCP, (A, 5000, E, 53), tcp_flags=flags, **more)
        return world.answer(E, TCP, tcp_flags=flags, **more)

    assert not segment(True, SYN, sequence=seq)
    assert not segment(False, SYN | ACK, ack=seq + 1, sequence=0)
    segment(True, ack=1)
    segment(False, ack=seq + 1, sequence=1)
    assert segment(True, ack=5)
    assert segment(False, sequence=5)
    return segment


@pytest.mark.parametrize(
    "ending",
    [
        [(True, RST)],
        [(False, RST)],
        [(True, FIN | ACK), (False, FIN | ACK), (True, ACK)],
        [(False, FIN | ACK), (True, FIN | ACK), (False, ACK)],
        [(True, FIN | ACK)],
        [(True, SYN)],
        [(False, SYN)],
    ],
)
def test_a_connection_ends_as_in_the_walk_alone(make: Callable[..., TwinWorld], ending: list[tuple[bool, int]]) -> None:
    world = make()
    segment = connection(world)
    for at in range(10):
        world.advance(1)
        assert segment(True, ack=5 + 400 * at)
        assert segment(False, sequence=5 + 400 * at)
    for from_inside, flags in ending:
        assert not segment(from_inside, flags, sequence=5 + 3700, ack=5 + 3600), "nor behind the second FIN"
        world.compare_links()
    for _ in range(8):
        world.advance(200)
        world.compare_links()


def test_c6_the_acknowledgments_that_close_a_connection_are_walked_and_later_ones_repeated(
    make: Callable[..., TwinWorld],
) -> None:
    world = make()
    segment = partial(connection(world), data=b"")
    assert not segment(True, FIN | ACK, sequence=1001, ack=6)
    assert segment(False, ack=1002, sequence=6), "one end may go on for hours"
    assert not segment(False, FIN | ACK, ack=1002, sequence=6)
    link = world.link(TCP, A, 5000)
    assert (link.state, link.closing) == ("both-FIN", OPEN)
    assert not segment(True, sequence=1002, ack=7)
    assert (link.state, link.closing) == ("both-FIN", FINISHED)
    segment(False, ack=1002, sequence=7)
    assert segment(False, ack=1002, sequence=7)
    assert segment(True, sequence=1002, ack=7)
    world.compare_links()


def test_u5a_questions_are_repeated_and_their_links_end_as_in_the_walk_alone(make: Callable[..., TwinWorld]) -> None:
    world = make()
    once = learned(world)
    assert [world.answer(E) for _ in range(2)] == [False, True]
    for _ in range(12):
        world.advance(4)
        once()
        world.answer(E)
    assert once(), "whoever asks often is not walked for it"
    assert world.answer(E)
    world.compare_links()
    world.advance(14 + HARVEST_S)
    world.compare_links()
    assert world.link(UDP, A, 5000).outside_port == 5000
    world.advance(1 + HARVEST_S)
    world.compare_links()
    assert all(link.is_static for link in world.fast.aliases.links(world.now))


def test_a_reset_is_judged_by_the_window_that_hits_have_moved(make: Callable[..., TwinWorld]) -> None:
    """RFC 5961 3, RFC 7857 2.2: a reset outside of the window passes without effect."""
    world = make()
    segment = connection(world)
    assert segment(True, ack=1_000_000)
    assert not segment(False, RST, sequence=5), "an old sequence number: nothing ends"
    assert world.link(TCP, A, 5000).state == "EST"
    world.compare_links()
    segment(True, ack=1_000_000)
    assert segment(True, ack=1_000_100)
    segment(False, RST, sequence=1_000_110)
    assert world.link(TCP, A, 5000).state == "TRANS"
    world.compare_links()


def test_what_was_repeated_before_a_reset_does_not_revive_the_connection_after_it(
    make: Callable[..., TwinWorld],
) -> None:
    world = make()
    segment = connection(world)
    assert segment(True, ack=6)
    assert not segment(True, RST, sequence=2000)
    world.advance(HARVEST_S)
    assert world.link(TCP, A, 5000).state == "TRANS"
    assert not segment(False, sequence=6), "both directions were settled"
    world.compare_links()


def test_other_threads_repeat_nothing_while_tap1_gets_another_address(tmp_path: Path) -> None:
    """Neither under the old address, nor to whoever has the old router's slot in the new ARP table."""
    frame = MACS["tap0"] + IPV4_TYPE + packet(UDP, (A, 5000, E, 53), b"data", flags=DONT_FRAGMENT)
    meanwhile = []

    class Asked(PlainTable):
        """Asked in the middle of a change, as by another thread."""

        def set_port(self, port: int, mac: bytes, mtu_bytes: int, slots: memoryview | None) -> None:
            meanwhile.append(self.forward(0, frame, None, 1000 * SECOND_NS) if self._macs[0] else None)
            super().set_port(port, mac, mtu_bytes, slots)

    world = TwinWorld(tmp_path, STATIC_ARP, 1, Asked)
    learned(world)
    meanwhile.clear()
    world.reload(STATIC_ARP.replace(f'"{ADDRESS_O}/24"', '"192.168.1.7/24"'))
    assert meanwhile
    assert {type(found) for found in meanwhile} == {Punt}


@pytest.mark.parametrize("resets", [1, 2])
def test_what_follows_a_reset_to_a_stranger_opens_a_connection_of_its_own(
    make: Callable[..., TwinWorld], resets: int
) -> None:
    """RFC 7857 7.1: the reset makes no session, and the next segment does, at once: what comes back counts for it."""
    world = make()
    connection(world)
    world.advance(100)
    stranger = address_int("203.0.113.6")
    for _ in range(resets):
        assert not world.inside(TCP, (A, 5000, stranger, 53), tcp_flags=RST, sequence=7)
    world.inside(TCP, (A, 5000, stranger, 53), tcp_flags=ACK, sequence=8, ack=9)
    world.answer(stranger, TCP, tcp_flags=ACK, sequence=9, ack=10)
    for _ in range(40):
        world.advance(200)
        world.compare_links()


# Bounds


def test_a_full_table_stays_bounded_and_the_walk_serves(make: Callable[..., TwinWorld]) -> None:
    world = make(limit=8)
    once = learned(world)
    for number in range(300):
        world.inside(UDP, (B, 6000 + number, E, 53))
        assert len(world.table) <= 8
    assert once(), "who is in use stays"
    world.compare_links()


def test_the_timer_runs_only_while_there_are_entries(make: Callable[..., TwinWorld]) -> None:
    world = make()
    assert world.fast.next_deadline() is None
    learned(world)
    assert world.fast.next_deadline() is not None
    world.advance(FORGET_S + LEASE_S)
    assert len(world.table) == 0
    assert world.fast.fast.due_ns is None


def test_without_a_table_flows_are_recorded_and_nothing_is_repeated(make: Callable[..., TwinWorld]) -> None:
    world = make()
    plain = Gateway(world.walk.settings, world.walk.routes, random.Random(1))
    raw = packet(UDP, (A, 5000, E, 53), b"data", flags=DONT_FRAGMENT)
    for _ in range(3):
        plain.receive("tap0", MACS["tap0"] + IPV4_TYPE + raw, world.now)
    assert [flow.packets for flow in plain.fast.live(world.now)] == [3]
    assert plain.fast.due_ns is None
    assert plain.aliases.settings.udp_timeout_ns == 300 * SECOND_NS
    assert world.fast.aliases.settings.udp_timeout_ns == (300 + HARVEST_S) * SECOND_NS


def test_ports_beyond_the_last_number_are_walked(make: Callable[..., TwinWorld]) -> None:
    world = make()
    fast: FastPath = world.fast.fast
    numbers = [fast.number(f"vpn:node{number}") for number in range(MOST_PORTS)]
    assert max(numbers) == MOST_PORTS - 1
    assert numbers[-1] == -1
    world.both(lambda gateway: setattr(gateway, "unreachable_nodes", set()))
    assert learned(world)()


# Anything


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 150))
def test_whatever_comes_and_changes_both_send_the_same(make: Callable[..., TwinWorld], seed: int, steps: int) -> None:
    rng = random.Random(seed)
    world = make(limit=rng.choice((8, 64)))
    for _ in range(steps):
        gateway_step(world, rng)
    world.compare_links()
