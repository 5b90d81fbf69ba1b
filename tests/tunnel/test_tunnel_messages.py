"""Bad messages from outside meet silence, and a reason that is counted."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunnel_world import HOMES, KEYS, PUBLIC, World, connected, inner, kinds, pair, peer_of

from tunnel import noise, tai64n
from tunnel.cookies import CookieDesk, CookieJar
from tunnel.effects import Effects, Endpoint, Received
from tunnel.messages import MessageKind
from wire.drop import Drop
from wire.units import seconds_ns

STRANGER = Endpoint(b"\xc6\x33\x64\x07", 999)


def initiation(
    caller: str, *, stamp: bytes | None = None, psk: bytes = bytes(32), sender: int = 7, to: str = "bob"
) -> bytes:
    """A well-formed initiation made by hand."""
    local = noise.LocalKeys(KEYS[caller])
    remote = noise.RemoteKeys(local, PUBLIC[to], psk)
    body, _ = noise.initiate(local, remote, b"\x55" * 32, stamp or tai64n.stamp(1 << 61), sender)
    return CookieJar(PUBLIC[to]).finish(body, 0)


def is_silent(effects: Effects, reason: Drop) -> bool:
    return effects.drops == {reason: 1} and not (effects.datagrams or effects.packets or effects.events)


def messages(world: World) -> dict[MessageKind, bytes]:
    """One of each kind, all of them real."""
    alice, bob = world.nodes["alice"], world.nodes["bob"]
    found = {line.kind: line.datagram for line in world.log if line.kind is not None}
    found[MessageKind.COOKIE_REPLY] = CookieDesk(PUBLIC["bob"], world.rng.randbytes).reply(
        found[MessageKind.INITIATION], alice.home, world.now
    )
    assert bob.drops == {}
    return found


def test_w3_wrong_lengths_types_and_reserved_bytes_are_dropped_in_silence() -> None:
    world, _, bob = connected()
    for kind, datagram in messages(world).items():
        wrong = [datagram[:-1], datagram[:4], b"", b"\x06" + datagram[1:], b"\0" + datagram[1:]]
        wrong += [datagram[:at] + b"\x01" + datagram[at + 1 :] for at in (1, 2, 3)]
        if kind is not MessageKind.DATA:
            wrong.append(datagram + b"\0")
        else:
            wrong = [datagram[:31], *wrong[1:], datagram.ljust(65_536, b"\0")]
        for case in wrong:
            effects = bob.tunnel.receive([Received(case, STRANGER)], world.now)
            assert is_silent(effects, Drop.TUNNEL_MALFORMED), (kind, len(case))


def test_w4_mac1_comes_first_and_all_that_follows_is_silent() -> None:
    world, _, bob = connected()
    receive = bob.tunnel.receive
    good = initiation("alice")
    assert is_silent(receive([Received(good[:116] + bytes(32), STRANGER)], world.now), Drop.TUNNEL_MAC1)
    assert is_silent(receive([Received(initiation("alice", to="carol"), STRANGER)], world.now), Drop.TUNNEL_MAC1)
    assert is_silent(receive([Received(initiation("mallory"), STRANGER)], world.now), Drop.TUNNEL_UNKNOWN_PEER)
    jar = CookieJar(PUBLIC["bob"])
    for at in (20, 45, 90):
        body = bytearray(good[:116])
        body[at] ^= 1
        assert is_silent(receive([Received(jar.finish(bytes(body), 0), STRANGER)], world.now), Drop.TUNNEL_HANDSHAKE)
    low_order = jar.finish(good[:8] + bytes(32) + good[40:116], 0)
    assert is_silent(receive([Received(low_order, STRANGER)], world.now), Drop.TUNNEL_HANDSHAKE)
    assert kinds(receive([Received(good, STRANGER)], world.now)) == [MessageKind.RESPONSE]


def test_w4_forged_response_does_not_end_the_handshake() -> None:
    world, alice, bob = pair()
    first = world.send(alice, "bob", inner()).datagrams[0][1]
    answer = bob.tunnel.receive([Received(first, alice.home)], world.now).datagrams[0][1]
    jar = CookieJar(PUBLIC["alice"])
    for body in (answer[:12] + b"\x09" + bytes(31) + answer[44:60], answer[:12] + bytes(32) + answer[44:60]):
        assert is_silent(
            alice.tunnel.receive([Received(jar.finish(body, 0), STRANGER)], world.now), Drop.TUNNEL_HANDSHAKE
        )
    unknown = jar.finish(answer[:8] + b"\1\2\3\4" + answer[12:60], 0)
    assert is_silent(alice.tunnel.receive([Received(unknown, STRANGER)], world.now), Drop.TUNNEL_UNKNOWN_INDEX)
    assert kinds(alice.tunnel.receive([Received(answer, bob.home)], world.now)) == [MessageKind.DATA]
    assert is_silent(alice.tunnel.receive([Received(answer, bob.home)], world.now), Drop.TUNNEL_UNKNOWN_INDEX)


def test_w5_recorded_and_equal_and_older_timestamps_are_ignored() -> None:
    world, alice, bob = connected()
    recorded = world.sent("alice", MessageKind.INITIATION)[0].datagram
    world.run(1)
    assert is_silent(bob.tunnel.receive([Received(recorded, alice.home)], world.now), Drop.TUNNEL_OLD_TIMESTAMP)
    greatest = bob.tunnel.stamps()[PUBLIC["alice"]].received
    older = tai64n.stamp(1_600_000_000_000_000_000)
    for stamp in (greatest, older):
        again = initiation("alice", stamp=stamp)
        assert is_silent(bob.tunnel.receive([Received(again, alice.home)], world.now), Drop.TUNNEL_OLD_TIMESTAMP)


def test_w5_recorded_initiation_is_ignored_after_our_restart() -> None:
    world, _alice, bob = connected()
    recorded = world.sent("alice", MessageKind.INITIATION)[0].datagram
    world.restart(bob, peer_of("alice", known=False))
    assert is_silent(bob.tunnel.receive([Received(recorded, STRANGER)], world.now), Drop.TUNNEL_OLD_TIMESTAMP)


def test_w5_our_stamps_grow_over_a_restart_with_a_clock_that_stepped_back() -> None:
    world, alice, bob = connected()
    world.wall_offset_ns -= seconds_ns(86_400)
    world.restart(alice, peer_of("bob"))
    world.send(alice, "bob", inner(mark=1))
    world.run(1)
    assert bob.packets[-1] == ("alice", inner(mark=1))
    assert bob.drops == {}


def test_w5_reload_that_drops_a_peer_and_takes_it_back_still_knows_its_stamp() -> None:
    world, _alice, bob = connected()
    recorded = world.sent("alice", MessageKind.INITIATION)[0].datagram
    bob.tunnel.set_peers([], world.now)
    bob.tunnel.set_peers([peer_of("alice", known=False)], world.now)
    assert is_silent(bob.tunnel.receive([Received(recorded, STRANGER)], world.now), Drop.TUNNEL_OLD_TIMESTAMP)


def test_w6_one_initiation_of_a_peer_in_20_ms() -> None:
    world, _, bob = connected()
    base = 1_800_000_000_000_000_000
    at = world.now
    answered = []
    for step in range(10):
        effects = bob.tunnel.receive(
            [Received(initiation("alice", stamp=tai64n.stamp(base + step * (1 << 25))), STRANGER)],
            at + step * 5_000_000,
        )
        answered.append(bool(effects.datagrams))
        if not effects.datagrams:
            assert is_silent(effects, Drop.TUNNEL_TOO_SOON)
    assert answered == [True, False, False, False, True, False, False, False, True, False]


def test_w18_indices_are_random_and_unique_and_unknown_ones_are_silent() -> None:
    world, alice, bob = connected()
    given_out = iter([b"\1\0\0\0", b"\1\0\0\0", b"\2\0\0\0"])
    table = bob.tunnel._indices
    random_bytes = table._random_bytes
    table._random_bytes = lambda size: next(given_out)
    table.entries[1] = next(iter(table.entries.values()))
    assert table.draw() == 2
    del table.entries[1]
    table._random_bytes = random_bytes
    data = world.send(alice, "bob", inner()).datagrams[0][1]
    wrong = data[:4] + b"\xff\xff\xff\xfe" + data[8:]
    assert is_silent(bob.tunnel.receive([Received(wrong, STRANGER)], world.now), Drop.TUNNEL_UNKNOWN_INDEX)
    for _ in range(5):
        world.run(150)
        world.send(alice, "bob", inner())
        world.run(1)
        assert len(table.sessions) <= 3
    indices = [line.datagram[4:8] for line in world.log if line.kind in (MessageKind.INITIATION, MessageKind.RESPONSE)]
    assert len(set(indices)) == len(indices) >= 12


def test_w19_window_moves_only_after_authentication() -> None:
    world, alice, bob = connected()
    good = world.send(alice, "bob", inner(mark=1)).datagrams[0][1]
    forged = good[:8] + (1 << 40).to_bytes(8, "little") + good[16:]
    assert is_silent(bob.tunnel.receive([Received(forged, STRANGER)], world.now), Drop.TUNNEL_AUTHENTICATION)
    tampered = good[:-1] + bytes([good[-1] ^ 1])
    assert is_silent(bob.tunnel.receive([Received(tampered, STRANGER)], world.now), Drop.TUNNEL_AUTHENTICATION)
    effects = bob.tunnel.receive([Received(good, alice.home)] * 3, world.now)
    assert effects.packets == [("alice", inner(mark=1))]
    assert effects.drops == {Drop.TUNNEL_REPLAY: 2}
    assert is_silent(bob.tunnel.receive([Received(good, alice.home)], world.now), Drop.TUNNEL_REPLAY)


def test_w30_wrong_preshared_key_fails_at_the_response_in_silence() -> None:
    world = World()
    alice = world.add("alice", peer_of("bob", psk=b"\1" * 32))
    bob = world.add("bob", peer_of("alice", known=False, psk=b"\2" * 32))
    world.send(alice, "bob", inner())
    world.run(30)
    assert bob.packets == []
    assert set(alice.drops) == {Drop.TUNNEL_HANDSHAKE}
    assert {line.kind for line in world.log} == {MessageKind.INITIATION, MessageKind.RESPONSE}


def test_w30_preshared_key_of_zeros_is_none_and_the_right_one_works() -> None:
    for psk in (bytes(32), b"\3" * 32):
        world, alice, bob = pair(psk=psk)
        world.send(alice, "bob", inner())
        world.run(1)
        assert bob.packets == [("alice", inner())]
    world = World()
    alice = world.add("alice", peer_of("bob"))
    bob = world.add("bob", peer_of("alice", known=False, psk=bytes(32)))
    world.send(alice, "bob", inner())
    world.run(1)
    assert bob.packets == [("alice", inner())]


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_w27_random_bytes_never_raise_and_are_never_answered(burst: list[bytes]) -> None:
    world, _, bob = connected()
    effects = bob.tunnel.receive([Received(datagram, STRANGER) for datagram in burst], world.now)
    assert (effects.datagrams, effects.packets, effects.events) == ([], [], [])
    assert sum(effects.drops.values()) == len(burst)


@pytest.mark.parametrize("seed", range(4))
def test_w27_damaged_messages_never_raise_and_are_never_answered(seed: int) -> None:
    rng = random.Random(seed)
    world, alice, bob = connected(seed)
    world.send(alice, "bob", inner(1000))
    world.send(bob, "alice", inner(1000, source="10.0.0.2"))
    real = [*messages(world).values(), initiation("alice")]
    jars = [CookieJar(PUBLIC[name]) for name in ("alice", "bob")]
    for _ in range(1500):
        datagram = bytearray(rng.choice(real))
        for _ in range(rng.choice((1, 1, 2, 8))):
            datagram[rng.randrange(len(datagram))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.2:
            datagram = datagram[: rng.randrange(len(datagram))]
        if rng.random() < 0.5 and datagram[:1] in b"\1\2" and len(datagram) in (148, 92):
            fixed = datagram[:-32]
            fixed[rng.randrange(4, len(fixed))] ^= 1
            datagram = bytearray(rng.choice(jars).finish(bytes(fixed), 0))
        node = rng.choice((alice, bob))
        effects = node.tunnel.receive([Received(bytes(datagram), STRANGER)], world.now)
        if any(datagram[:-16] == known[:-16] and len(datagram) in (148, 92) for known in real):
            continue  # only mac2 is damaged, which nobody looks at now
        assert all(kind is MessageKind.COOKIE_REPLY for kind in kinds(effects))
        assert (effects.packets, effects.events) == ([], [])


def test_w27_session_survives_what_strangers_send() -> None:
    world, alice, bob = connected()
    rng = random.Random(5)
    for _ in range(200):
        noise_burst = [Received(rng.randbytes(rng.choice((32, 64, 92, 148))), STRANGER) for _ in range(10)]
        bob.tunnel.receive(noise_burst, world.now)
    world.send(alice, "bob", inner(mark=9))
    world.run(1)
    assert bob.packets[-1] == ("alice", inner(mark=9))
    assert bob.tunnel.status(world.now)[0].endpoint == HOMES["alice"]
