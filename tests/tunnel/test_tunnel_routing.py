"""Cryptokey routing, padding, queues, reload: what peers may send, and what becomes of what they are sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunnel_world import EVERYTHING, HOMES, PUBLIC, World, connected, inner, kinds, pair, peer_of

from tunnel.allowed import AllowedIps
from tunnel.effects import Endpoint, Happening, Network, PeerConfig, PeerEvent, Unsent
from tunnel.endpoint import Tunnel
from tunnel.messages import DEFAULT_MTU_BYTES, OVERHEAD_IPV4_BYTES, OVERHEAD_IPV6_BYTES, MessageKind
from wire.drop import Drop
from wire.units import address_int

TEN = Network(address_int("10.0.0.0"), 8)
ONE = Network(address_int("10.1.0.0"), 16)


def open_at_bob(packet: bytes, allowed: tuple[Network, ...] = EVERYTHING) -> dict[Drop, int] | bytes:
    """Bob's verdict on an inner packet of Alice's."""
    world = World()
    alice = world.add("alice", peer_of("bob"))
    bob = world.add("bob", peer_of("alice", known=False, allowed_ips=allowed))
    world.send(alice, "bob", packet)
    world.run(1)
    assert not world.keepalives("alice")
    return bob.packets[0][1] if bob.packets else dict(bob.drops)


@pytest.mark.parametrize(
    ("size", "datagram"), [(20, 64), (30, 64), (32, 64), (33, 80), (1408, 1440), (1409, 1452), (1420, 1452)]
)
def test_w21_padded_with_zeros_to_16_but_not_above_the_mtu(size: int, datagram: int) -> None:
    world, alice, bob = connected()
    effects = world.send(alice, "bob", inner(size, mark=1))
    assert [len(sealed) for _, sealed, _ in effects.datagrams] == [datagram]
    world.run(1)
    assert bob.packets[-1] == ("alice", inner(size, mark=1))


def test_w21_follows_a_changed_mtu_and_longer_packets_come_back() -> None:
    world, alice, _ = connected()
    assert alice.tunnel.set_mtu(1280, world.now).events == [PeerEvent(Happening.MTU, "bob")]
    effects = world.send(alice, "bob", inner(1279), inner(1281), inner(1400))
    assert [len(sealed) for _, sealed, _ in effects.datagrams] == [1280 + 32]
    assert effects.unsent == [Unsent("bob", inner(size), Drop.TUNNEL_TOO_BIG) for size in (1281, 1400)]


def test_w21_receiver_trims_by_the_inner_length() -> None:
    assert open_at_bob(inner(60, total=41)) == inner(60, total=41)[:41]
    ipv6 = b"\x60\0\0\0\0\x05\x3b\x40" + bytes(32) + b"hello"
    assert open_at_bob(ipv6, (Network(0, 0, 6),)) == ipv6


@pytest.mark.parametrize(
    "packet",
    [
        inner(30, total=31 + 2),  # beyond the padding
        inner(30, total=19),
        inner(19, total=19),
        b"\x45",
        b"\x60" + bytes(30),
        b"\x60\0\0\0\0\x20" + bytes(34),
        b"\x50" + bytes(39),
        b"\xff" * 40,
    ],
)
def test_w21_w22_malformed_inner_packets_are_dropped(packet: bytes) -> None:
    assert open_at_bob(packet, (Network(0, 0), Network(0, 0, 6))) == {Drop.TUNNEL_INNER_MALFORMED: 1}


def test_w22_inner_source_must_be_the_peers() -> None:
    assert open_at_bob(inner(source="10.9.9.9"), (TEN,)) == inner(source="10.9.9.9")
    for source in ("11.0.0.1", "9.255.255.255"):
        assert open_at_bob(inner(source=source), (TEN,)) == {Drop.TUNNEL_INNER_SOURCE: 1}
    assert open_at_bob(b"\x60" + bytes(39)) == {Drop.TUNNEL_INNER_SOURCE: 1}


def test_w22_longest_prefix_decides_both_ways() -> None:
    world = World()
    alice = world.add("alice", peer_of("bob"))
    carol = world.add("carol", peer_of("bob"))
    bob = world.add(
        "bob",
        peer_of("alice", known=False, allowed_ips=(TEN,)),
        peer_of("carol", known=False, allowed_ips=(ONE, Network(address_int("192.168.7.0"), 24))),
    )
    for destination, peer in [
        ("10.0.0.1", "alice"),
        ("10.1.2.3", "carol"),
        ("192.168.7.7", "carol"),
        ("8.8.8.8", None),
    ]:
        assert bob.tunnel.peer_for(address_int(destination)) == peer
    assert bob.tunnel.peer_for(1, version=6) is None
    world.send(alice, "bob", inner(source="10.1.2.3"), inner(source="10.2.2.3"))
    world.send(carol, "bob", inner(source="10.1.2.3"), inner(source="10.2.2.3"))
    world.run(1)
    assert bob.packets == [("alice", inner(source="10.2.2.3")), ("carol", inner(source="10.1.2.3"))]
    assert bob.drops == {Drop.TUNNEL_INNER_SOURCE: 2}


def test_w22_nodes_that_share_a_prefix_may_both_send_from_it() -> None:
    peers = [PeerConfig(name, bytes([number]) * 32, EVERYTHING) for number, name in enumerate("ab")]
    allowed = AllowedIps(peers)
    assert allowed.owners(address_int("8.8.8.8")) == ("a", "b")
    for name in "ab":
        assert allowed.admit(inner(), name) == inner()


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2**32 - 1), st.integers(0, 32)), max_size=12),
    st.integers(0, 2**32 - 1),
)
def test_w22_agrees_with_a_search_through_all_prefixes(drawn: list[tuple[str, int, int]], address: int) -> None:
    prefixes = [(name, Network(bits >> (32 - length) << (32 - length), length)) for name, bits, length in drawn]
    peers = [
        PeerConfig(name, name.encode() * 32, tuple(prefix for owner, prefix in prefixes if owner == name))
        for name in "abc"
    ]
    around = [
        (prefix.length, name)
        for name, prefix in prefixes
        if address >> (32 - prefix.length) == prefix.network >> (32 - prefix.length)
    ]
    longest = max((length for length, _ in around), default=None)
    expected = {name for length, name in around if length == longest}
    assert set(AllowedIps(peers).owners(address)) == expected


@pytest.mark.parametrize("prefix", [Network(1, 31), Network(0, 33), Network(0, 0, 5), Network(1 << 32, 32)])
def test_impossible_prefixes_are_refused(prefix: Network) -> None:
    with pytest.raises(ValueError, match="prefix"):
        AllowedIps([PeerConfig("a", bytes(32), (prefix,))])


def test_default_mtu_leaves_room_for_either_outer_protocol() -> None:
    assert DEFAULT_MTU_BYTES == 1500 - OVERHEAD_IPV6_BYTES
    world, alice, _ = connected()
    sealed = world.send(alice, "bob", inner(DEFAULT_MTU_BYTES)).datagrams[0][1]
    assert len(sealed) + 20 + 8 == DEFAULT_MTU_BYTES + OVERHEAD_IPV4_BYTES
    assert len(sealed) + 40 + 8 == 1500


def test_w29_queue_holds_128_and_the_oldest_give_way() -> None:
    world, alice, bob = pair()
    packets = [inner(mark=mark) for mark in range(200)]
    effects = world.send(alice, "bob", *packets)
    assert [unsent.packet for unsent in effects.unsent] == packets[:72]
    assert effects.drops == {Drop.TUNNEL_QUEUE_FULL: 72}
    assert kinds(effects) == [MessageKind.INITIATION]
    assert world.send(alice, "bob", inner(mark=200)).unsent == [Unsent("bob", packets[72], Drop.TUNNEL_QUEUE_FULL)]
    world.run(1)
    assert [packet for _, packet in bob.packets] == [*packets[73:], inner(mark=200)]


def test_peer_without_an_endpoint_gives_its_packets_back_until_it_calls() -> None:
    world, alice, bob = pair()
    assert world.send(bob, "alice", inner()).unsent == [Unsent("alice", inner(), Drop.TUNNEL_NO_ENDPOINT)]
    assert kinds(bob.tunnel.call("alice", world.now)) == []
    world.send(alice, "bob", inner())
    world.run(1)
    world.send(bob, "alice", inner(source="10.0.0.2"))
    world.run(1)
    assert alice.packets == [("bob", inner(source="10.0.0.2"))]


def test_unknown_peer_gives_its_packets_back() -> None:
    world, alice, _ = pair()
    assert alice.tunnel.send("nobody", [inner()], world.now).unsent == [Unsent("nobody", inner(), Drop.TUNNEL_NO_PEER)]
    assert kinds(alice.tunnel.send("bob", [], world.now)) == []


def test_endpoint_that_is_set_later_begins_the_persistent_keepalive() -> None:
    world = World()
    alice = world.add("alice", peer_of("bob", known=False, persistent_keepalive_s=25))
    world.add("bob", peer_of("alice", known=False))
    world.run(60)
    assert world.log == []
    alice.tunnel.set_endpoint("bob", HOMES["bob"], world.now)
    world.run(1)
    assert alice.happened(Happening.SESSION) == 1


def test_relayed_endpoint_is_another_one_than_a_direct_one() -> None:
    direct = Endpoint(bytes(4), 7)
    assert direct != direct._replace(via="relay")
    assert direct.packed() == bytes(4) + b"\0\x07"
    assert direct._replace(via="relay").packed() != direct.packed()


def test_reload_keeps_sessions_of_unchanged_peers_and_learned_endpoints() -> None:
    world, alice, bob = connected()
    seen = len(world.log)
    bob.tunnel.set_peers(
        [peer_of("carol"), peer_of("alice", known=False, name="renamed", allowed_ips=(TEN,))], world.now
    )
    world.send(bob, "renamed", inner(source="10.0.0.2"))
    world.send(alice, "bob", inner(mark=1))
    world.run(1)
    assert alice.packets == [("bob", inner(source="10.0.0.2"))]
    assert bob.packets[-1] == ("renamed", inner(mark=1))
    assert {line.kind for line in world.log[seen:]} == {MessageKind.DATA}
    alice.tunnel.set_peers([peer_of("bob", endpoint=Endpoint(b"\x0a\0\0\x09", 9))], world.now)
    assert alice.tunnel.status(world.now)[0].endpoint == Endpoint(b"\x0a\0\0\x09", 9)
    assert alice.tunnel.status(world.now)[0].has_session


def test_reload_ends_removed_peers_and_those_whose_preshared_key_changed() -> None:
    world, alice, _ = connected()
    session = next(iter(alice.tunnel._indices.sessions.values()))
    alice.tunnel.set_peers([peer_of("bob", psk=b"\7" * 32)], world.now)
    assert session.keys.send.is_wiped
    assert not alice.tunnel.status(world.now)[0].has_session
    effects = alice.tunnel.send("bob", [inner()], world.now)
    assert kinds(effects) == [MessageKind.INITIATION]
    assert alice.tunnel.set_peers([], world.now).unsent == [Unsent("bob", inner(), Drop.TUNNEL_NO_PEER)]
    assert alice.tunnel._indices.pending == alice.tunnel._indices.sessions == {}


def test_reload_that_is_refused_changes_nothing() -> None:
    world, alice, bob = connected()
    for wrong in [
        [peer_of("bob"), peer_of("carol", name="bob")],
        [peer_of("bob"), peer_of("bob", name="other")],
        [peer_of("alice")],
        [peer_of("bob", persistent_keepalive_s=65_536)],
        [PeerConfig("low", bytes(32))],
        [PeerConfig("short", b"\1")],
        [peer_of("bob", allowed_ips=(Network(1, 0),))],
        [peer_of("bob", psk=b"short")],
    ]:
        with pytest.raises(ValueError, match=r".+"):
            alice.tunnel.set_peers(wrong, world.now)
    world.send(alice, "bob", inner(mark=4))
    world.run(1)
    assert bob.packets[-1] == ("alice", inner(mark=4))


def test_status_counts_bytes_of_both_ends_alike() -> None:
    world, alice, bob = connected()
    world.send(alice, "bob", *[inner(1400, mark=mark) for mark in range(20)])
    world.run(30)
    (ours,), (theirs,) = alice.tunnel.status(world.now), bob.tunnel.status(world.now)
    assert (ours.tx_bytes, ours.rx_bytes) == (theirs.rx_bytes, theirs.tx_bytes)
    assert ours.tx_bytes == sum(len(line.datagram) for line in world.log if line.by == "alice")
    assert ours.latest_handshake is not None
    assert (ours.public_key, theirs.public_key) == (PUBLIC["bob"], PUBLIC["alice"])


def test_stamps_of_a_wrong_size_are_refused() -> None:
    _world, alice, _ = connected()
    stamps = {PUBLIC["bob"]: alice.tunnel.stamps()[PUBLIC["bob"]]._replace(sent=b"short")}
    with pytest.raises(ValueError, match="12 bytes"):
        Tunnel(b"\1" * 32, [], 0, wall_ns=lambda: 0, random_bytes=bytes, stamps=stamps)
