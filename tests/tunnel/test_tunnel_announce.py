"""Announced prefixes between tunnels: told, taken, refused, withdrawn, and what a hostile peer can do with them.

Beyond 600 lines because every case needs the same two ends and the same words for what each of them believes.
"""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tunnel.tunnel_world import DELAY_NS, EVERYTHING, Node, World, inner, peer_of
from tunnel.allowed import AllowedIps
from tunnel.announce import (
    ATTEMPTS,
    LIST_PAUSE_NS,
    LISTS_AT_ONCE,
    MOST_PREFIXES,
    PREFIX,
    RENEW_NS,
    Hearing,
    Offer,
    Telling,
)
from tunnel.control import ControlKind, ControlMessage
from tunnel.effects import Happening, Network, Networks, PeerConfig, Received, Verdict
from tunnel.messages import DEFAULT_MTU_BYTES, MessageKind
from wire.drop import Drop
from wire.units import SECOND_NS

TAKEN, CONFIGURED = Verdict.ACCEPTED, Verdict.CONFIGURED
RUN, OTHER_RUN = b"run one.", b"run two."


def network(text: str) -> Network:
    prefix = ip_network(text)
    return Network(int(prefix.network_address), prefix.prefixlen)


def networks(text: str) -> tuple[Network, ...]:
    return tuple(map(network, text.split()))


LAN = networks("192.168.200.0/24")
NEVER = networks("0.0.0.0/8 127.0.0.0/8 169.254.0.0/16 224.0.0.0/4 240.0.0.0/4")
FROM_LAN = inner(source="192.168.200.3", destination="8.8.8.8")


def told(node: Node, peer: str) -> dict[Network, Verdict | None]:
    """The prefixes that the node told a peer, with its answers."""
    return next(dict(one.told) for one in node.tunnel.status(0) if one.name == peer)


def heard(node: Node, peer: str) -> dict[Network, Verdict | None]:
    return next(dict(one.announced) for one in node.tunnel.status(0) if one.name == peer)


def change(world: World, node: Node, announce: str, own: str = "") -> None:
    wanted = Networks(networks(announce), networks(own), NEVER)
    world.carry(node, node.tunnel.set_networks(wanted, world.now))


def gateway_and_exit(announce: str = "192.168.200.0/24", accept: str = "192.168.0.0/16") -> tuple[World, Node, Node]:
    """Alice is the gateway of a LAN, Bob an exit that gives her nothing but what she announces; no session yet."""
    world = World()
    alice = world.add("alice", peer_of("bob"))
    change(world, alice, announce, own="192.168.200.0/24")
    bob = world.add("bob", peer_of("alice", known=False, allowed_ips=(), accept=networks(accept)))
    change(world, bob, "", own="10.0.0.1/32")
    return world, alice, bob


def announce(world: World, node: Node, body: str | bytes, *, run: bytes = RUN, number: int = 1) -> None:
    """A message made by hand."""
    if isinstance(body, str):
        body = b"".join(PREFIX.pack(one.length, one.network) for one in networks(body))
    world.send(node, "bob", ControlMessage(ControlKind.ANNOUNCE, number, run + body).packed())
    world.run(0.1)


def test_the_first_packet_of_a_lan_behind_a_gateway_is_taken_and_its_answer_finds_the_way() -> None:
    world, alice, bob = gateway_and_exit()
    assert bob.tunnel.peer_for(LAN[0].network + 3) is None
    world.send(alice, "bob", FROM_LAN)
    world.run(0.1)
    assert bob.packets == [("alice", FROM_LAN)]
    assert bob.tunnel.announced() == {"alice": LAN}
    assert bob.tunnel.peer_for(LAN[0].network + 3) == "alice"
    assert told(alice, "bob") == dict.fromkeys(LAN, TAKEN)
    assert (alice.happened(Happening.ANSWERED), bob.happened(Happening.ANNOUNCED)) == (1, 1)
    assert not alice.drops + bob.drops


def test_who_is_called_announces_as_well() -> None:
    world, alice, bob = gateway_and_exit("")
    change(world, bob, "10.9.0.0/16")
    world.carry(alice, alice.tunnel.set_peers([peer_of("bob", accept=networks("10.0.0.0/8"))], world.now))
    world.carry(alice, alice.tunnel.call("bob", world.now))
    world.run(1)
    assert alice.tunnel.announced() == {"bob": networks("10.9.0.0/16")}
    assert told(bob, "alice") == {network("10.9.0.0/16"): TAKEN}


def test_an_announcement_and_packets_in_one_burst_are_taken_in_their_order() -> None:
    world, alice, bob = gateway_and_exit("")
    world.send(alice, "bob", FROM_LAN)
    world.run(1)
    assert bob.drops == {Drop.TUNNEL_INNER_SOURCE: 1}
    message = ControlMessage(ControlKind.ANNOUNCE, 1, RUN + PREFIX.pack(24, LAN[0].network)).packed()
    effects = alice.tunnel.send("bob", [FROM_LAN, message, FROM_LAN, FROM_LAN], world.now)
    taken = bob.tunnel.receive([Received(datagram.data, alice.home) for datagram in effects.datagrams], world.now)
    assert taken.packets == [("alice", FROM_LAN)] * 2
    assert taken.drops == {Drop.TUNNEL_INNER_SOURCE: 1}


def test_it_is_repeated_until_it_is_answered_and_again_with_each_session() -> None:
    world, alice, bob = gateway_and_exit()
    lost_after = world.now
    world.fate = lambda datagram: [DELAY_NS] if len(datagram) in (148, 92) or world.now > lost_after + 4e9 else []
    world.carry(alice, alice.tunnel.call("bob", world.now))
    world.run(3.5)
    assert bob.tunnel.announced() == {}
    world.run(27)
    assert bob.tunnel.announced() == {"alice": LAN}
    announcements = [line.at for line in world.sent("alice", MessageKind.DATA) if len(line.datagram) == 64]
    assert [round(at) for at in announcements] == [0, 1, 3, 7]
    world.run(100)
    world.send(alice, "bob", FROM_LAN)
    world.run(5)
    world.send(alice, "bob", FROM_LAN)
    world.run(1)
    assert len([line for line in world.sent("alice", MessageKind.DATA, 100) if len(line.datagram) == 64]) >= 1
    assert bob.happened(Happening.ANNOUNCED) == 1


def test_a_plain_peer_that_never_answers_is_left_alone_until_the_next_session() -> None:
    world, alice, bob = gateway_and_exit()
    world.carry(alice, alice.tunnel.call("bob", world.now))
    world.run(0.015)  # the response is there, the announcement is not
    del world.at[bob.home]
    world.run(14)
    sent = [line for line in world.sent("alice", MessageKind.DATA) if len(line.datagram) == 64]
    assert [round(line.at) for line in sent] == [0, 1, 3, 7]
    world.run(400)
    assert len([line for line in world.sent("alice", MessageKind.DATA) if len(line.datagram) == 64]) == ATTEMPTS


def test_nothing_is_said_where_nothing_is_announced() -> None:
    world, alice, bob = gateway_and_exit("")
    world.send(alice, "bob", inner())
    world.run(60)
    assert told(alice, "bob") == heard(bob, "alice") == {}
    assert alice.happened(Happening.ANSWERED) == bob.happened(Happening.ANNOUNCED) == 0
    assert bob.tunnel.announced() == {}


def test_a_reload_tells_the_new_list_at_once_and_an_empty_one_withdraws() -> None:
    world, alice, bob = gateway_and_exit()
    world.carry(alice, alice.tunnel.call("bob", world.now))
    world.run(1)
    change(world, alice, "192.168.7.0/24 10.0.0.0/24")
    world.run(0.1)
    assert bob.tunnel.announced() == {"alice": networks("192.168.7.0/24")}
    assert told(alice, "bob") == {network("192.168.7.0/24"): TAKEN, network("10.0.0.0/24"): Verdict.NOT_ALLOWED}
    change(world, alice, "")
    world.run(0.1)
    assert bob.tunnel.announced() == {}
    world.send(alice, "bob", FROM_LAN)
    world.run(60)
    assert bob.drops[Drop.TUNNEL_INNER_SOURCE] == 1
    assert not bob.packets
    change(world, alice, "")
    assert bob.happened(Happening.ANNOUNCED) == 3


def test_a_withdrawal_that_is_lost_is_told_again() -> None:
    world, alice, bob = gateway_and_exit()
    world.carry(alice, alice.tunnel.call("bob", world.now))
    world.run(1)
    world.fate = lambda datagram: []
    change(world, alice, "")
    world.run(2)
    assert bob.tunnel.announced() == {"alice": LAN}
    world.fate = lambda datagram: [DELAY_NS]
    world.run(3)
    assert bob.tunnel.announced() == {}


def test_a_gateway_that_starts_anew_changes_nothing_and_starts_with_its_first_packet() -> None:
    world, alice, bob = gateway_and_exit()
    for _ in range(20):
        world.send(alice, "bob", FROM_LAN)
        world.run(1)
        world.restart(alice, peer_of("bob"))
        change(world, alice, "192.168.200.0/24", own="192.168.200.0/24")
    assert bob.happened(Happening.ANNOUNCED) == 1
    assert len(bob.packets) == 20
    assert not bob.drops


def test_an_exit_that_starts_anew_hears_it_with_the_next_session() -> None:
    world, alice, bob = gateway_and_exit()
    world.send(alice, "bob", FROM_LAN)
    world.run(1)
    world.restart(bob, peer_of("alice", known=False, allowed_ips=(), accept=networks("192.168.0.0/16")))
    for _ in range(30):
        world.send(alice, "bob", FROM_LAN)
        world.run(1)
    assert bob.tunnel.announced() == {"alice": LAN}
    assert bob.packets


def test_a_gateway_that_starts_anew_and_announces_nothing_loses_its_prefixes() -> None:
    world, alice, bob = gateway_and_exit()
    world.send(alice, "bob", FROM_LAN)
    world.run(1)
    world.restart(alice, peer_of("bob"))
    world.send(alice, "bob", inner())
    world.run(RENEW_NS / SECOND_NS - 1)
    assert bob.tunnel.announced() == {"alice": LAN}
    world.run(2)
    assert bob.tunnel.announced() == {}
    assert bob.happened(Happening.ANNOUNCED) == 2


def test_a_short_outage_changes_nothing_and_a_long_one_ends_with_the_keys() -> None:
    world, alice, bob = gateway_and_exit()
    world.send(alice, "bob", FROM_LAN)
    world.run(1)
    world.fate = lambda datagram: []
    world.run(300)
    assert bob.tunnel.announced() == {"alice": LAN}
    assert bob.happened(Happening.ANNOUNCED) == 1
    world.run(241)
    assert bob.tunnel.announced() == {}
    assert bob.tunnel.peer_for(LAN[0].network) is None
    world.fate = lambda datagram: [DELAY_NS]
    world.send(alice, "bob", FROM_LAN)
    world.run(10)
    assert bob.tunnel.announced() == {"alice": LAN}


def test_a_day_of_new_sessions_with_loss_never_withdraws() -> None:
    world, alice, bob = gateway_and_exit()
    world.send(alice, "bob", FROM_LAN)
    world.run(1)
    world.fate = lambda datagram: [] if world.rng.random() < 0.1 else [DELAY_NS] * (1 + (world.rng.random() < 0.05))
    for _ in range(1000):
        world.send(alice, "bob", FROM_LAN)
        world.send(bob, "alice", inner())
        world.run(world.rng.choice([1, 7, 40]))
    assert bob.happened(Happening.ANNOUNCED) == 1


def test_a_peer_that_goes_takes_its_prefixes_along_and_one_that_is_renamed_keeps_them() -> None:
    world, alice, bob = gateway_and_exit()
    world.send(alice, "bob", FROM_LAN)
    world.run(1)
    renamed = peer_of("alice", known=False, name="home", allowed_ips=(), accept=networks("192.168.0.0/16"))
    world.carry(bob, bob.tunnel.set_peers([renamed], world.now))
    assert bob.tunnel.announced() == {"home": LAN}
    assert bob.tunnel.peer_for(LAN[0].network) == "home"
    world.carry(bob, bob.tunnel.set_peers([], world.now))
    assert bob.tunnel.announced() == {}


def test_a_reload_that_allows_less_takes_it_back_and_says_so() -> None:
    world, alice, bob = gateway_and_exit()
    world.send(alice, "bob", FROM_LAN)
    world.run(1)
    strict = peer_of("alice", known=False, allowed_ips=(), accept=networks("10.0.0.0/8"))
    world.carry(bob, bob.tunnel.set_peers([strict], world.now))
    world.run(0.1)
    assert bob.tunnel.announced() == {}
    assert told(alice, "bob") == dict.fromkeys(LAN, Verdict.NOT_ALLOWED)
    assert bob.drops == {Drop.TUNNEL_ANNOUNCE_REFUSED: 1}
    world.carry(bob, bob.tunnel.set_peers([peer_of("alice", known=False, accept=networks("0.0.0.0/0"))], world.now))
    world.run(0.1)
    assert told(alice, "bob") == dict.fromkeys(LAN, TAKEN)


def three(accept: str = "10.0.0.0/8") -> tuple[World, Node, Node, Node]:
    """Alice and Carol call Bob; both may announce the same."""
    world = World()
    alice, carol = (world.add(name, peer_of("bob")) for name in ("alice", "carol"))
    taking = [peer_of(name, known=False, allowed_ips=(), accept=networks(accept)) for name in ("alice", "carol")]
    bob = world.add("bob", *taking)
    for node in (carol, alice):
        world.carry(node, node.tunnel.call("bob", world.now))
    world.run(1)
    return world, alice, carol, bob


def test_what_two_announce_is_the_first_one_s_until_it_goes() -> None:
    world, alice, carol, bob = three()
    change(world, carol, "10.7.0.0/16 10.8.0.0/16")
    world.run(0.1)
    change(world, alice, "10.7.0.0/16 10.7.1.0/24")
    world.run(0.1)
    assert bob.tunnel.announced() == {
        "carol": networks("10.7.0.0/16 10.8.0.0/16"),
        "alice": networks("10.7.1.0/24"),
    }
    assert told(alice, "bob") == {network("10.7.0.0/16"): Verdict.TAKEN, network("10.7.1.0/24"): TAKEN}
    assert bob.drops == {Drop.TUNNEL_ANNOUNCE_REFUSED: 1}
    change(world, carol, "10.8.0.0/16")
    world.run(0.1)
    assert told(alice, "bob") == {network("10.7.0.0/16"): TAKEN, network("10.7.1.0/24"): TAKEN}
    change(world, carol, "10.7.0.0/16")
    world.run(0.1)
    assert told(carol, "bob") == {network("10.7.0.0/16"): Verdict.TAKEN}
    assert bob.tunnel.peer_for(network("10.7.9.0/24").network) == "alice"


def test_who_does_not_answer_any_more_gives_way_to_who_announces_the_same() -> None:
    world, alice, carol, bob = three()
    change(world, carol, "10.7.0.0/16")
    world.run(0.1)
    del world.at[carol.home], world.nodes["carol"]
    world.send(bob, "carol", inner())
    world.run(5)
    change(world, alice, "10.7.0.0/16")
    world.run(0.1)
    assert bob.tunnel.announced() == {"carol": networks("10.7.0.0/16")}
    world.run(150)
    assert bob.happened(Happening.GAVE_UP) == 1
    assert bob.tunnel.announced() == {"alice": networks("10.7.0.0/16")}
    assert told(alice, "bob") == {network("10.7.0.0/16"): TAKEN}
    world.at[carol.home] = world.nodes["carol"] = carol
    world.send(carol, "bob", inner())
    world.run(10)
    assert bob.tunnel.announced() == {"alice": networks("10.7.0.0/16")}
    assert told(carol, "bob") == {network("10.7.0.0/16"): Verdict.TAKEN}


@pytest.mark.parametrize(
    ("prefix", "verdict"),
    [
        ("0.0.0.0/0", Verdict.TOO_WIDE),
        ("0.0.0.0/1", Verdict.TOO_WIDE),
        ("128.0.0.0/1", Verdict.TOO_WIDE),
        ("16.0.0.0/7", Verdict.TOO_WIDE),
        ("0.1.0.0/16", Verdict.SPECIAL),
        ("127.0.0.1/32", Verdict.SPECIAL),
        ("169.254.1.0/24", Verdict.SPECIAL),
        ("169.0.0.0/8", Verdict.SPECIAL),
        ("224.0.0.5/32", Verdict.SPECIAL),
        ("255.255.255.255/32", Verdict.SPECIAL),
        ("192.168.200.0/24", Verdict.OURS),
        ("192.168.200.128/25", Verdict.OURS),
        ("192.168.200.3/32", Verdict.OURS),
        ("192.168.0.0/16", Verdict.OURS),
        ("10.0.0.0/24", Verdict.OURS),
        ("10.0.0.2/32", TAKEN),
        ("10.1.0.0/16", Verdict.ELSEWHERE),
        ("10.1.2.0/24", Verdict.ELSEWHERE),
        ("10.1.2.3/32", Verdict.ELSEWHERE),
        ("10.0.0.0/8", Verdict.OURS),
        ("10.0.0.0/15", Verdict.OURS),
        ("172.16.0.0/12", TAKEN),
        ("172.20.0.0/16", CONFIGURED),
        ("172.20.1.0/24", CONFIGURED),
        ("8.8.8.8/32", TAKEN),
    ],
)
def test_only_what_hurts_nobody_is_taken(prefix: str, verdict: Verdict) -> None:
    world = World()
    alice = world.add("alice", peer_of("bob"))
    bob = world.add(
        "bob",
        peer_of("carol", allowed_ips=(*EVERYTHING, *networks("10.1.0.0/16"))),
        peer_of("alice", known=False, allowed_ips=networks("172.20.0.0/16"), accept=EVERYTHING),
    )
    change(world, bob, "", own="192.168.200.0/24 10.0.0.1/32")
    announce(world, alice, prefix)
    assert heard(bob, "alice") == {network(prefix): verdict}
    expected = {"alice": networks(prefix)} if verdict is TAKEN else {}
    assert bob.tunnel.announced() == expected
    assert bob.drops[Drop.TUNNEL_ANNOUNCE_REFUSED] == verdict.is_refusal


def test_a_longer_prefix_of_another_peer_s_configuration_wins_against_an_announced_one() -> None:
    world = World()
    alice = world.add("alice", peer_of("bob"))
    taking = peer_of("alice", known=False, allowed_ips=(), accept=EVERYTHING)
    bob = world.add("bob", taking, peer_of("carol", allowed_ips=networks("10.1.0.0/16")))
    announce(world, alice, "10.0.0.0/8")
    assert bob.tunnel.peer_for(network("10.1.2.3").network) == "carol"
    assert bob.tunnel.peer_for(network("10.2.2.3").network) == "alice"
    world.send(alice, "bob", inner(source="10.1.2.3"), inner(source="10.2.2.3"))
    world.run(0.1)
    assert bob.packets == [("alice", inner(source="10.2.2.3"))]


def test_without_accept_nothing_is_taken_and_the_packets_are_counted() -> None:
    world, alice, bob = gateway_and_exit(accept="")
    world.send(alice, "bob", FROM_LAN)
    world.run(40)
    assert told(alice, "bob") == dict.fromkeys(LAN, Verdict.NOT_ALLOWED)
    assert bob.drops == {Drop.TUNNEL_ANNOUNCE_REFUSED: 1, Drop.TUNNEL_INNER_SOURCE: 1}
    assert not bob.packets


@pytest.mark.parametrize(
    "body",
    [
        PREFIX.pack(24, 0xC0A8C801),
        PREFIX.pack(33, 0xC0A8C800),
        PREFIX.pack(255, 0),
        PREFIX.pack(0, 1),
        PREFIX.pack(24, 0xC0A8C800)[:-1],
        PREFIX.pack(24, 0xC0A8C800) + b"\0",
        PREFIX.pack(32, 0x01020304) * (MOST_PREFIXES + 1),
        b"".join(PREFIX.pack(32, 0x0A000000 + number) for number in range(275)),
    ],
    ids=["host bits", "/33", "/255", "host bits of /0", "cut", "a byte more", "one too many", "as many as fit"],
)
def test_a_malformed_list_leaves_the_old_one_and_is_not_answered(body: bytes) -> None:
    world, alice, bob = gateway_and_exit("")
    announce(world, alice, "192.168.7.0/24", number=1)
    answers = len(world.sent("bob", MessageKind.DATA))
    announce(world, alice, body, number=2)
    assert bob.tunnel.announced() == {"alice": networks("192.168.7.0/24")}
    assert bob.drops == {Drop.TUNNEL_CONTROL: 1}
    assert len(world.sent("bob", MessageKind.DATA)) == answers


def test_a_body_that_ends_within_the_run_is_malformed() -> None:
    world, alice, bob = gateway_and_exit("")
    announce(world, alice, b"", run=RUN[:5])
    assert bob.drops == {Drop.TUNNEL_CONTROL: 1}


def test_the_longest_list_is_one_message_that_any_path_takes() -> None:
    hosts = " ".join(f"10.0.{number // 256}.{number % 256}/32" for number in range(MOST_PREFIXES))
    world, alice, bob = gateway_and_exit(hosts, "10.0.0.0/16")
    change(world, bob, "")
    world.carry(alice, alice.tunnel.call("bob", world.now))
    world.run(1)
    assert len(bob.tunnel.announced()["alice"]) == MOST_PREFIXES
    assert set(told(alice, "bob").values()) == {TAKEN}
    sizes = {len(line.datagram) for line in world.sent("alice", MessageKind.DATA)} - {DEFAULT_MTU_BYTES + 32}  # a probe
    assert 1000 < max(sizes) + 28 <= 1100
    with pytest.raises(ValueError, match="200 prefixes"):
        change(world, alice, hosts + " 10.1.0.0/16")
    with pytest.raises(ValueError, match="host bits"):
        alice.tunnel.set_networks(Networks((Network(1, 8),)), world.now)


def test_old_numbers_and_other_runs_under_the_same_session_change_nothing() -> None:
    world, alice, bob = gateway_and_exit("")
    announce(world, alice, "192.168.7.0/24", number=9)
    announce(world, alice, "192.168.8.0/24", number=8)
    announce(world, alice, "192.168.8.0/24", number=9 + 2**31)
    announce(world, alice, "192.168.8.0/24", number=1, run=OTHER_RUN)
    assert bob.drops == {Drop.TUNNEL_ANNOUNCE_OLD: 3}
    announce(world, alice, "192.168.8.0/24", number=9)
    assert bob.drops[Drop.TUNNEL_CONTROL] == 1
    assert bob.tunnel.announced() == {"alice": networks("192.168.7.0/24")}


def test_numbers_go_on_beyond_32_bits() -> None:
    world, alice, bob = gateway_and_exit("")
    announce(world, alice, "192.168.7.0/24", number=2**32 - 1)
    announce(world, alice, "192.168.8.0/24", number=0)
    assert bob.tunnel.announced() == {"alice": networks("192.168.8.0/24")}
    announce(world, alice, "192.168.7.0/24", number=2**32 - 1)
    assert bob.drops == {Drop.TUNNEL_ANNOUNCE_OLD: 1}


def test_what_a_process_that_has_ended_sent_late_is_not_taken() -> None:
    world, alice, bob = gateway_and_exit("")
    announce(world, alice, "192.168.7.0/24", number=70)
    late = alice.tunnel.send(
        "bob", [ControlMessage(ControlKind.ANNOUNCE, 71, RUN + PREFIX.pack(24, 0xC0A80900)).packed()], world.now
    )
    world.restart(alice, peer_of("bob"))
    announce(world, alice, "192.168.8.0/24", number=1, run=OTHER_RUN)
    world.run(6)
    assert bob.tunnel.announced() == {"alice": networks("192.168.8.0/24")}
    world.carry(alice, late)
    world.run(1)
    assert bob.drops == {Drop.TUNNEL_ANNOUNCE_OLD: 1}
    assert bob.tunnel.announced() == {"alice": networks("192.168.8.0/24")}


def test_a_flood_of_lists_is_looked_at_a_few_times_and_counted() -> None:
    world, alice, bob = gateway_and_exit("")
    world.send(alice, "bob", inner())
    world.run(1)
    for number in range(500):
        body = RUN + PREFIX.pack(32, 0xC0A80000 + number)
        world.send(alice, "bob", ControlMessage(ControlKind.ANNOUNCE, number, body).packed())
    world.run(0.1)
    assert bob.happened(Happening.ANNOUNCED) == LISTS_AT_ONCE
    assert bob.drops[Drop.TUNNEL_ANNOUNCE_LIMIT] == 500 - LISTS_AT_ONCE
    assert len(bob.tunnel.announced()["alice"]) == 1
    world.run(LIST_PAUSE_NS / SECOND_NS)
    announce(world, alice, "192.168.9.0/24", number=600)
    assert bob.tunnel.announced() == {"alice": networks("192.168.9.0/24")}


def test_answers_that_differ_again_and_again_are_not_news_each_time() -> None:
    world, alice, bob = gateway_and_exit()
    world.carry(alice, alice.tunnel.call("bob", world.now))
    world.run(1)
    number, before = alice.tunnel._common.offer.number, alice.happened(Happening.ANSWERED)
    for turn in range(500):
        body = bytes([turn % 5] * len(alice.tunnel._common.offer.networks))
        world.send(bob, "alice", ControlMessage(ControlKind.ANNOUNCED, number, body).packed())
    world.run(1)
    assert alice.happened(Happening.ANSWERED) - before == LISTS_AT_ONCE - 1  # the honest answer was one
    assert alice.drops[Drop.TUNNEL_ANNOUNCE_LIMIT] > 300
    world.run(10)
    world.send(bob, "alice", ControlMessage(ControlKind.ANNOUNCED, number, bytes([2] * len(body))).packed())
    world.run(1)
    assert set(told(alice, "bob").values()) == {Verdict.NOT_ALLOWED}


def test_a_list_that_came_too_soon_is_told_again_by_its_sender() -> None:
    world, alice, bob = gateway_and_exit("")
    world.carry(alice, alice.tunnel.call("bob", world.now))
    world.run(1)
    for number in range(10):
        change(world, alice, f"192.168.{number}.0/24")
    world.run(16)
    assert bob.tunnel.announced() == {"alice": networks("192.168.9.0/24")}


@pytest.mark.parametrize("body", [b"", b"\0\0", bytes(300)], ids=["none", "one more", "many more"])
def test_an_answer_of_another_length_or_number_changes_nothing(body: bytes) -> None:
    world, alice, bob = gateway_and_exit()
    world.carry(alice, alice.tunnel.call("bob", world.now))
    world.run(1)
    for number in (1, 7):
        world.send(bob, "alice", ControlMessage(ControlKind.ANNOUNCED, number, body).packed())
    world.run(0.1)
    assert told(alice, "bob") == dict.fromkeys(LAN, TAKEN)
    assert alice.drops == {Drop.TUNNEL_CONTROL: 1, Drop.TUNNEL_ANNOUNCE_OLD: 1}


def test_a_verdict_of_a_later_version_reads_as_a_refusal() -> None:
    telling = Telling(Offer(RUN, 3, LAN))
    assert telling.answered(ControlMessage(ControlKind.ANNOUNCED, 3, b"\x63"), 0) is True
    assert telling.shown() == ((LAN[0], Verdict.UNKNOWN),)
    assert Verdict.UNKNOWN.is_refusal
    assert {verdict.says for verdict in Verdict} == {verdict.says for verdict in set(Verdict)}


def test_the_limit_does_not_care_how_long_nothing_happened() -> None:
    hearing = Hearing()
    outcomes = []
    for number, now in enumerate([0] * 6 + [10**18] * 6):
        message = ControlMessage(ControlKind.ANNOUNCE, number, RUN + PREFIX.pack(32, number << 8))
        outcomes.append(hearing.receive(message, 0, now) is True)
    assert outcomes == ([True] * LISTS_AT_ONCE + [False] * 2) * 2


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["alice", "carol"]),
            st.integers(0, 2**32 - 1) | st.integers(0, 5),
            st.binary(max_size=40)
            | st.lists(st.tuples(st.integers(6, 34), st.integers(0, 2**32 - 1)), max_size=5).map(
                lambda pairs: (
                    RUN
                    + b"".join(
                        PREFIX.pack(length, value & ~(0xFFFFFFFF >> min(length, 32)) & 0xFFFFFFFF)
                        for length, value in pairs
                    )
                )
            ),
        ),
        max_size=12,
    )
)
def test_whatever_peers_announce_each_gets_only_what_it_may_have(messages: list[tuple[str, int, bytes]]) -> None:
    world, alice, carol, bob = three("0.0.0.0/0")
    change(world, bob, "", own="192.168.200.0/24")
    nodes = {"alice": alice, "carol": carol}
    for name, number, body in messages:
        world.send(nodes[name], "bob", ControlMessage(ControlKind.ANNOUNCE, number, body).packed())
        world.run(12)
    taken = [one for prefixes in bob.tunnel.announced().values() for one in prefixes]
    assert len(taken) == len(set(taken)) <= 2 * MOST_PREFIXES
    for prefix in taken:
        assert prefix.length >= 8
        assert not any(special.overlaps(prefix) for special in (*NEVER, *LAN))
        assert bob.tunnel.peer_for(prefix.network) is not None
    for name in nodes:
        assert set(bob.tunnel.announced().get(name, ())) == {
            prefix for prefix, verdict in heard(bob, name).items() if verdict is TAKEN
        }


def test_announced_prefixes_come_and_go_beside_configured_ones() -> None:
    allowed = AllowedIps(
        [PeerConfig("a", b"a", networks("10.0.0.0/8 0.0.0.0/0")), PeerConfig("b", b"b", networks("10.1.0.0/16"))]
    )
    here = network("10.1.2.3/32").network
    assert allowed.owners(here) == ("b",)
    allowed.announce({network("10.1.2.0/24"): "a", network("172.16.0.0/12"): "b"})
    assert allowed.owners(here) == ("a",)
    assert allowed.configured_around(network("10.1.2.0/24")) == ("b",)
    assert allowed.configured_around(network("10.1.2.0/25")) == ("b",)
    assert allowed.configured_around(network("10.0.0.0/9")) == ("a",)
    assert allowed.configured_around(network("172.16.0.0/13")) == ()
    allowed.announce({network("10.1.2.0/24"): "b"})
    assert allowed.owners(here) == ("b",)
    assert allowed.owners(network("172.16.0.1/32").network) == ("a",)
    allowed.announce({})
    assert allowed.owners(here) == ("b",)
