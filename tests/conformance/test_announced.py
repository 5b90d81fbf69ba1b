"""Prefixes that a peer announces at run time: routed to it, and taken as sources from it, until it withdraws them."""

from __future__ import annotations

import pytest

from bridge.control.answers import route
from bridge.control.answers.question import Subject
from route.lists import Prefix, parse_prefix
from tests.conformance.conftest import MakeScenario
from tests.conformance.exit_node import (
    ALICE,
    AT_ALICE,
    AT_BOB,
    AT_CAROL,
    BEHIND_ALICE,
    BEHIND_CAROL,
    BOB,
    CONFIGURATION,
    WORLD,
    ends,
)
from tests.conformance.harness import ADDRESS_O, E, Scenario
from tests.conformance.packets import only, udp
from wire.drop import Drop

BEHIND_BOB = "192.168.77.9"


def prefixes(*texts: str) -> tuple[Prefix, ...]:
    return tuple(parse_prefix(text) for text in texts)


@pytest.fixture
def exit_node(make: MakeScenario) -> Scenario:
    s = make("O", configuration=CONFIGURATION)
    s.replayable = False  # announcements stand in no capture
    return s


def test_what_a_peer_announces_lives_behind_it(exit_node: Scenario) -> None:
    s = exit_node
    assert s.inject(AT_BOB, udp((BEHIND_BOB, 5000), (WORLD, 53))) == []
    assert s.dropped == Drop.TUNNEL_INNER_SOURCE
    s.gateway.announce({"bob": prefixes("192.168.77.0/24")})
    assert ends(only(s.inject("U", udp((WORLD, 53), (BEHIND_BOB, 5000))))) == (AT_BOB, WORLD, BEHIND_BOB)
    assert ends(only(s.inject(AT_ALICE, udp((ALICE, 5), (BEHIND_BOB, 53))))) == (AT_BOB, ALICE, BEHIND_BOB)
    out = only(s.inject(AT_BOB, udp((BEHIND_BOB, 5000), (E, 53))))
    assert ends(out) == ("O", ADDRESS_O, E)
    assert ends(only(s.inject("O", udp((E, 53), (ADDRESS_O, out.ip.sport))))) == (AT_BOB, E, BEHIND_BOB)
    told = route.get(Subject(s.gateway), {"ip": BEHIND_BOB}, s.now)
    assert (told["prefix"], told["target"], told["source"]) == ("192.168.77.0/24", AT_BOB, "announced by bob")
    s.gateway.announce({})
    assert s.inject(AT_BOB, udp((BEHIND_BOB, 5000), (WORLD, 53))) == []
    assert route.get(Subject(s.gateway), {"ip": BEHIND_BOB}, s.now)["source"] == "built-in"


def test_an_announcement_takes_nothing_from_allowed_ips(exit_node: Scenario) -> None:
    s = exit_node
    s.gateway.announce({"bob": prefixes(f"{ALICE}/32", "10.20.0.0/16", "0.0.0.0/0"), "mallory": prefixes("9.0.0.0/8")})
    assert ends(only(s.inject("U", udp((WORLD, 53), (ALICE, 5000))))) == (AT_ALICE, WORLD, ALICE)
    assert ends(only(s.inject("U", udp((WORLD, 53), (BEHIND_ALICE, 5000))))) == (AT_ALICE, WORLD, BEHIND_ALICE)
    for source in (ALICE, BEHIND_ALICE, WORLD):
        assert s.inject(AT_BOB, udp((source, 5000), (WORLD, 53))) == []
        assert s.dropped == Drop.TUNNEL_INNER_SOURCE
    assert s.gateway.announced.keys() == {"bob"}


def test_a_reload_keeps_what_was_announced_by_peers_that_stay(exit_node: Scenario) -> None:
    s = exit_node
    s.gateway.announce({"bob": prefixes("192.168.77.0/24"), "carol": prefixes("192.168.78.0/24")})
    s.reload(replace=((CONFIGURATION[CONFIGURATION.index("[peer.carol]") : CONFIGURATION.index("[offload]")], ""),))
    assert only(s.inject("U", udp((WORLD, 53), (BEHIND_BOB, 5000)))).port == AT_BOB
    assert s.gateway.announced.keys() == {"bob"}
    assert route.get(Subject(s.gateway), {"ip": "192.168.78.1"}, s.now)["target"] == "unreachable"


def link_of(s: Scenario, port: str, host: str) -> int:
    """The outside port of a link that the host has made, which works."""
    out = only(s.inject(port, udp((host, 5000), (E, 53))))
    outside: int = out.ip.sport
    assert ends(only(s.inject("O", udp((E, 53), (ADDRESS_O, outside))))) == (port, E, host)
    return outside


@pytest.mark.parametrize("peer", [None, "carol"])
def test_what_comes_for_a_host_that_is_gone_goes_to_nobody_else(exit_node: Scenario, peer: str | None) -> None:
    s = exit_node
    s.gateway.announce({"bob": prefixes("192.168.77.0/24", "192.168.78.0/24")})
    gone, stays = link_of(s, AT_BOB, BEHIND_BOB), link_of(s, AT_BOB, "192.168.78.1")
    s.gateway.announce({"bob": prefixes("192.168.78.0/24")} | ({peer: prefixes("192.168.77.0/24")} if peer else {}))
    assert s.inject("O", udp((E, 53), (ADDRESS_O, gone))) == []
    assert s.dropped == Drop.ALIAS_NO_LINK
    assert ends(only(s.inject("O", udp((E, 53), (ADDRESS_O, stays))))) == (AT_BOB, E, "192.168.78.1")


def test_what_comes_for_a_peer_that_a_reload_has_removed_goes_to_nobody_else(exit_node: Scenario) -> None:
    s = exit_node
    gone, stays = link_of(s, AT_CAROL, BEHIND_CAROL), link_of(s, AT_BOB, BOB)
    s.reload(replace=((CONFIGURATION[CONFIGURATION.index("[peer.carol]") : CONFIGURATION.index("[offload]")], ""),))
    assert s.inject("O", udp((E, 53), (ADDRESS_O, gone))) == []
    assert s.dropped == Drop.ALIAS_NO_LINK
    assert ends(only(s.inject("O", udp((E, 53), (ADDRESS_O, stays))))) == (AT_BOB, E, BOB)
