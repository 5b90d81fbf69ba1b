"""Under load: who does not prove its address gets a cookie, who does gets its share, and data goes on."""

from __future__ import annotations

import random

from tunnel_world import KEYS, PUBLIC, World, connected, inner, kinds, pair, peer_of

from tunnel import noise, tai64n
from tunnel.cookies import SOURCES, CookieDesk, CookieJar, LoadGauge, SourceLimits
from tunnel.effects import Endpoint, Received
from tunnel.messages import MessageKind
from wire.drop import Drop
from wire.units import SECOND_NS

SOURCE = Endpoint(b"\xc6\x33\x64\x07", 999)


def flood(count: int, seed: int = 0) -> list[Received]:
    """Initiations with a right mac1 and nothing else, from spoofed addresses."""
    rng = random.Random(seed)
    jar = CookieJar(PUBLIC["bob"])
    burst = []
    for _ in range(count):
        message = jar.finish(b"\1\0\0\0" + rng.randbytes(112), 0)
        burst.append(Received(message, Endpoint(rng.randbytes(4), rng.randrange(1, 65_536))))
    return burst


def test_w24_flood_gets_cookies_and_leaves_no_state() -> None:
    world, alice, bob = connected()
    tables = bob.tunnel._indices
    before = (len(tables.sessions), len(tables.pending), len(bob.tunnel._limits._full_ns))
    burst = flood(6000)
    effects = bob.tunnel.receive(burst, world.now)
    assert effects.drops == {Drop.TUNNEL_HANDSHAKE: 127, Drop.TUNNEL_COOKIE_SENT: 5873}
    assert set(kinds(effects)) == {MessageKind.COOKIE_REPLY}
    assert len(effects.datagrams) == 5873
    assert (len(tables.sessions), len(tables.pending), len(bob.tunnel._limits._full_ns)) == before
    # No amplification, and the reply goes where the message came from.
    for (message, source, _), (to, reply, _) in zip(burst[127:], effects.datagrams, strict=True):
        assert to == source
        assert len(reply) < len(message)
    world.send(alice, "bob", inner(mark=1))
    world.run(1)
    assert bob.packets[-1] == ("alice", inner(mark=1))


def test_w24_peer_gets_through_a_flood_with_its_cookie() -> None:
    world, alice, bob = pair()
    world.send(alice, "bob", inner())
    for tenth in range(80):
        bob.tunnel.receive(flood(130, seed=tenth), world.now)
        world.run(0.1)
    assert bob.packets == [("alice", inner())]
    assert bob.drops == {Drop.TUNNEL_COOKIE_SENT: 1}
    first, second = world.sent("alice", MessageKind.INITIATION)
    assert not any(first.datagram[132:])
    assert any(second.datagram[132:])
    assert 5 <= second.at - first.at < 5.5


def test_w24_responses_need_a_cookie_under_load_too() -> None:
    world, alice, bob = pair()
    world.nodes.pop("bob")
    initiation = world.send(alice, "bob", inner()).datagrams[0][1]
    response = bob.tunnel.receive([Received(initiation, alice.home)], world.now).datagrams[0][1]
    gauge = alice.tunnel._gauge
    while not gauge.is_under_load(world.now):
        pass
    effects = alice.tunnel.receive([Received(response, bob.home)], world.now)
    assert kinds(effects) == [MessageKind.COOKIE_REPLY]
    assert effects.drops == {Drop.TUNNEL_COOKIE_SENT: 1}
    assert bob.tunnel.receive([Received(effects.datagrams[0][1], alice.home)], world.now).drops == {}


def test_w24_proven_source_has_20_handshakes_a_second_and_5_at_once() -> None:
    local = noise.LocalKeys(KEYS["alice"])
    remote = noise.RemoteKeys(local, PUBLIC["bob"])
    world, _, bob = connected()
    desk = bob.tunnel._desk
    now = world.now
    bob.tunnel.receive(flood(200), now)
    body, _ = noise.initiate(local, remote, b"\5" * 32, tai64n.stamp(1 << 61), 1)
    jar = CookieJar(PUBLIC["bob"])
    assert jar.accept_reply(desk.reply(jar.finish(body, now), SOURCE, now), now)
    proven = jar.finish(body, now)
    effects = bob.tunnel.receive([Received(proven, SOURCE)] * 8, now)
    assert effects.drops == {Drop.TUNNEL_OLD_TIMESTAMP: 4, Drop.TUNNEL_SOURCE_LIMIT: 3}
    assert kinds(effects) == [MessageKind.RESPONSE]
    elsewhere = bob.tunnel.receive([Received(proven, SOURCE._replace(port=1))], now)
    assert elsewhere.drops == {Drop.TUNNEL_COOKIE_SENT: 1}


def test_w24_source_limit_is_exact_and_bounded() -> None:
    limits = SourceLimits()
    now = 10 * SECOND_NS
    assert [limits.allows(SOURCE, now) for _ in range(7)] == [True] * 5 + [False] * 2
    allowed = sum(limits.allows(SOURCE._replace(port=step), now + step * SECOND_NS // 1000) for step in range(1, 1001))
    assert allowed == 20
    six = Endpoint(b"\x20\x01" + bytes(14), 1)
    assert all(limits.allows(six._replace(address=six.address[:8] + bytes([n]) * 8), now) for n in range(5))
    assert not limits.allows(six._replace(address=six.address[:8] + b"\x09" * 8), now)
    full = SourceLimits()
    for number in range(SOURCES):
        assert full.allows(Endpoint(number.to_bytes(4, "big"), 1), now)
    assert not full.allows(SOURCE, now)
    assert full.allows(SOURCE, now + SECOND_NS)
    assert len(full._full_ns) == 1


def test_w24_load_sticks_for_a_second_and_needs_128() -> None:
    gauge = LoadGauge()
    now = 5 * SECOND_NS
    assert [gauge.is_under_load(now) for _ in range(130)] == [False] * 127 + [True] * 3
    assert gauge.is_under_load(now + SECOND_NS - 1)
    assert not gauge.is_under_load(now + 3 * SECOND_NS)
    steady = LoadGauge()
    assert not any(steady.is_under_load(now + step * SECOND_NS // 100) for step in range(1000))


def test_w25_secret_and_cookies_expire_after_120_s() -> None:
    desk = CookieDesk(PUBLIC["bob"], random.Random(1).randbytes)
    jar = CookieJar(PUBLIC["bob"])
    now = 50 * SECOND_NS
    message = jar.finish(b"\1\0\0\0" + bytes(112), now)
    assert not desk.is_proven(message, SOURCE, now)
    assert jar.accept_reply(desk.reply(message, SOURCE, now), now)
    at = now + 120 * SECOND_NS - 1
    proven = jar.finish(message[:116], at)
    assert desk.is_proven(proven, SOURCE, at)
    assert not desk.is_proven(proven, SOURCE, at + 1)
    assert jar.finish(message[:116], at + 1)[132:] == bytes(16)
    desk.reply(message, SOURCE, at + 1)
    assert not desk.is_proven(proven, SOURCE, at + 1)


def test_w25_cookie_is_bound_to_address_and_port() -> None:
    desk = CookieDesk(PUBLIC["bob"], random.Random(1).randbytes)
    jar = CookieJar(PUBLIC["bob"])
    message = jar.finish(bytes(116), 0)
    assert jar.accept_reply(desk.reply(message, SOURCE, 0), 0)
    proven = jar.finish(bytes(116), 0)
    assert desk.is_proven(proven, SOURCE, 0)
    for other in (SOURCE._replace(port=1), SOURCE._replace(address=b"\1\2\3\4"), SOURCE._replace(via="relay")):
        assert not desk.is_proven(proven, other, 0)


def test_w26_cookie_is_kept_only_if_it_answers_our_last_mac1_and_resends_nothing() -> None:
    world, alice, bob = pair()
    initiation = world.send(alice, "bob", inner()).datagrams[0][1]
    desk = CookieDesk(PUBLIC["bob"], world.rng.randbytes)
    reply = desk.reply(initiation, alice.home, world.now)
    other = desk.reply(initiation[:20] + b"\1" + initiation[21:-32] + bytes(32), alice.home, world.now)
    stranger = CookieDesk(PUBLIC["carol"], world.rng.randbytes).reply(initiation, alice.home, world.now)
    unknown = reply[:4] + b"\1\2\3\4" + reply[8:]
    for wrong, reason in [
        (other, Drop.TUNNEL_COOKIE),
        (stranger, Drop.TUNNEL_COOKIE),
        (reply[:-1] + bytes([reply[-1] ^ 1]), Drop.TUNNEL_COOKIE),
        (unknown, Drop.TUNNEL_UNKNOWN_INDEX),
    ]:
        assert alice.tunnel.receive([Received(wrong, bob.home)], world.now).drops == {reason: 1}
    effects = alice.tunnel.receive([Received(reply, bob.home)], world.now)
    assert (effects.datagrams, effects.drops) == ([], {})
    assert alice.tunnel.receive([Received(reply, bob.home)], world.now).drops == {Drop.TUNNEL_COOKIE: 1}
    assert alice.tunnel.status(world.now)[0].rx_bytes == 0
    world.nodes.pop("bob")
    world.at.pop(bob.home)
    world.run(6)
    again = world.sent("alice", MessageKind.INITIATION)[-1].datagram
    assert desk.is_proven(again, alice.home, world.now)


def test_w26_cookie_is_used_in_a_response_too() -> None:
    world, alice, bob = pair()
    first = alice.tunnel.send("bob", [inner()], world.now).datagrams[0][1]
    response = bob.tunnel.receive([Received(first, alice.home)], world.now).datagrams[0][1]
    desk = CookieDesk(PUBLIC["alice"], world.rng.randbytes)
    assert bob.tunnel.receive([Received(desk.reply(response, bob.home, world.now), alice.home)], world.now).drops == {}
    world.run(6)
    second = world.sent("bob", MessageKind.RESPONSE)[-1].datagram
    assert desk.is_proven(second, bob.home, world.now)


def test_established_sessions_do_not_notice_load() -> None:
    world = World()
    alice = world.add("alice", peer_of("bob"))
    bob = world.add("bob", peer_of("alice", known=False))
    world.send(alice, "bob", inner())
    world.run(1)
    for step in range(20):
        data = [
            Received(datagram, alice.home)
            for _, datagram, _ in alice.tunnel.send("bob", [inner(mark=step)], world.now).datagrams
        ]
        mixed = [*flood(100, step), *data, *flood(100, step + 1000)]
        assert bob.tunnel.receive(mixed, world.now).packets == [("alice", inner(mark=step))]
