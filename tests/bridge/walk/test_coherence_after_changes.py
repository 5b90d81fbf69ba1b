"""After a change of configuration, peers, neighbours or forwards, no packet leaves by the decision from before.

Each case compares a gateway that repeats decisions with one that walks every frame, see `test_coherence.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flow.table import Punt
from route.lists import Prefix
from tests.bridge.walk.twin_world import NEW_MAC, PEERS, ROUTER, A, E, F, TwinWorld, learned
from trials.fuzz.targets.flow import (
    HOST,
    STATIC_ARP,
    X_TAP1,
    X_VPN,
    packet,
)
from trials.fuzz.targets.frames import MACS, repaired
from wire.ethernet import IPV4_TYPE
from wire.ipv4 import DONT_FRAGMENT, UDP
from wire.units import address_int


def new_list(world: TwinWorld) -> None:
    world.reload(prefixes="198.51.100.0/24\n")


def exempt(world: TwinWorld) -> None:
    world.reload(STATIC_ARP.replace("[alias]\n", '[alias]\nexempt = ["203.0.113.0/24"]\n'))


def forward_of_the_host(world: TwinWorld) -> None:
    forward = '[[alias.forward]]\non = "tap1"\nprotocol = "udp"\noutside_port = 7000\ninside = "192.168.200.10:5000"\n'
    world.reload(STATIC_ARP + forward)


def flush(world: TwinWorld) -> None:
    world.both(lambda gateway: gateway.flush_links({A}))


def forward_on_the_links_port(world: TwinWorld) -> None:
    port = world.link(UDP, A, 5000).outside_port
    forward = f'[[alias.forward]]\non = "tap1"\nprotocol = "udp"\noutside_port = {port}\ninside = "192.168.200.11:9"\n'
    world.reload(STATIC_ARP + forward)


@pytest.mark.parametrize("change", [new_list, exempt, forward_of_the_host, flush, forward_on_the_links_port])
def test_after_a_change_the_next_packet_is_decided_anew(
    make: Callable[..., TwinWorld], change: Callable[[TwinWorld], None]
) -> None:
    world = make()
    once = learned(world)
    link = world.link(UDP, A, 5000)
    ends = (E, 53, X_TAP1, link.outside_port)
    assert [world.put("tap1", UDP, ends) for _ in range(2)] == [False, True]
    change(world)
    assert not world.put("tap1", UDP, ends)
    assert not once()
    once()  # where it has another link now, what it counted for the one before was settled: one more walk
    assert once()
    world.compare_links()


def test_an_unreachable_node_takes_its_flows_away_at_once_and_a_fallback_keeps_them(
    make: Callable[..., TwinWorld],
) -> None:
    world = make(STATIC_ARP + PEERS)
    once = learned(world, F)
    world.both(lambda gateway: setattr(gateway, "unreachable_nodes", {"hk"}))
    assert not once()
    assert once()
    world.both(lambda gateway: setattr(gateway, "unreachable_nodes", {"hk"}))
    assert once(), "nothing has changed"
    world.both(lambda gateway: setattr(gateway, "unreachable_nodes", set()))
    assert not once()


def test_announced_prefixes_move_flows_and_what_a_peer_may_send(make: Callable[..., TwinWorld]) -> None:
    world = make(STATIC_ARP + PEERS)
    once = learned(world, F)
    assert not world.put("vpn", UDP, (F, 53, HOST, 5000))
    assert world.put("vpn", UDP, (F, 53, HOST, 5000))
    announced = {"de": (Prefix(F & 0xFFFFFF00, 24),)}
    world.both(lambda gateway: gateway.announce(announced))
    assert not world.put("vpn", UDP, (F, 53, HOST, 5000)), "it is another peer's address now"
    assert not once()
    assert once()
    world.both(lambda gateway: gateway.announce(announced))
    assert once(), "nothing has changed"


def test_allowed_prefixes_that_change_are_asked_again(make: Callable[..., TwinWorld]) -> None:
    world = make(STATIC_ARP + PEERS)
    source = address_int("10.9.0.1")
    assert [world.put("vpn:de", UDP, (source, 53, HOST, 5000)) for _ in range(2)] == [False, True]
    world.reload(STATIC_ARP + PEERS.replace('"0.0.0.0/0", "10.9.0.0/24"', '"10.8.0.0/24"'))
    assert not world.put("vpn:de", UDP, (source, 53, HOST, 5000))


def test_a_neighbour_that_moves_is_followed_by_the_very_next_packet(make: Callable[..., TwinWorld]) -> None:
    world = make()
    learned(world)
    world.both(lambda gateway: gateway.add_neighbour("tap1", ROUTER, NEW_MAC, world.now))
    raw = packet(UDP, (A, 5000, E, 53), flags=DONT_FRAGMENT)
    sent, repeated = world.inject("tap0", MACS["tap0"] + IPV4_TYPE + raw)
    assert repeated
    assert sent[0].frame[:6] == NEW_MAC


def test_a_neighbour_that_is_lost_is_asked_for_and_the_packet_waits(make: Callable[..., TwinWorld]) -> None:
    world = make()
    once = learned(world)
    world.both(lambda gateway: gateway.arp["tap1"].delete(ROUTER))
    assert not once()
    assert world.punts[Punt.NEXT_HOP] == 1
    world.both(lambda gateway: gateway.add_neighbour("tap1", ROUTER, NEW_MAC, world.now))
    assert once()


def test_a_lower_path_mtu_is_obeyed_by_the_very_next_packet(make: Callable[..., TwinWorld]) -> None:
    world = make()
    learned(world, F)
    assert world.inside(UDP, (A, 5000, F, 53), bytes(1300))
    world.both(lambda gateway: setattr(gateway.mtus, "known", {"vpn": 1280}))
    assert not world.inside(UDP, (A, 5000, F, 53), bytes(1300))
    assert world.punts[Punt.TOO_BIG] == 1
    assert world.inside(UDP, (A, 5000, F, 53), bytes(1252))
    world.both(lambda gateway: setattr(gateway.mtus, "known", {}))
    assert world.inside(UDP, (A, 5000, F, 53), bytes(1300))


def test_a_visitor_of_a_forward_is_answered_where_he_comes_from_though_the_flow_was_known(
    make: Callable[..., TwinWorld],
) -> None:
    forward = '[[alias.forward]]\non = "tap1"\nprotocol = "udp"\noutside_port = 7000\ninside = "192.168.200.10:5000"\n'
    world = make(STATIC_ARP + forward)
    once = learned(world, F)  # by the tunnel, where the table sends it
    assert not world.put("tap1", UDP, (F, 53, X_TAP1, 7000))
    assert not once(), "the answer to a visitor, by tap1"
    assert once()


def test_a_visitor_who_changes_ports_and_comes_back_is_answered_where_he_came_last(
    make: Callable[..., TwinWorld],
) -> None:
    forwards = "".join(
        f'[[alias.forward]]\non = "{port}"\nprotocol = "udp"\noutside_port = {number}\ninside = "192.168.200.10:5000"\n'
        for port, number in (("tap1", 7000), ("vpn", 7001))
    )
    world = make(STATIC_ARP + forwards + PEERS)
    for port, address, number in (("tap1", X_TAP1, 7000), ("vpn:de", X_VPN, 7001)) * 2:
        assert not world.put(port, UDP, (F, 53, address, number))
        assert world.put(port, UDP, (F, 53, address, number))
        assert [world.inside(UDP, (A, 5000, F, 53)) for _ in range(2)] == [False, True]


def test_a_fragment_that_follows_a_decision_from_before_a_change_lends_it_to_nobody(
    make: Callable[..., TwinWorld],
) -> None:
    world = make()
    once = learned(world)
    for fragment, prefixes in ((0x2000, "198.51.100.0/24\n"), (3, None)):
        raw = packet(UDP, (A, 5000, E, 53), bytes(16), identification=7)
        raw = repaired(raw[:6] + fragment.to_bytes(2, "big") + raw[8:])
        world.inject("tap0", MACS["tap0"] + IPV4_TYPE + raw)
        if prefixes is not None:
            world.reload(prefixes=prefixes)
    assert not once(), "it has another way now"


def test_under_address_dependent_filtering_rights_end_when_the_link_first_sends(make: Callable[..., TwinWorld]) -> None:
    world = make()
    learned(world)
    assert [world.answer(E) for _ in range(2)] == [False, True]
    world.reload(STATIC_ARP.replace("[alias]\n", '[alias]\nfiltering = "address-dependent"\n'))
    assert not world.answer(E)
    world.inside(UDP, (A, 5000, address_int("203.0.113.6"), 53))
    assert not world.answer(E), "filtered by both"
    learned_again = [world.answer(address_int("203.0.113.6")) for _ in range(2)]
    assert learned_again == [False, True]
