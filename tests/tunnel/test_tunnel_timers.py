"""When what happens: rekeying, giving up, keepalives, erasing. Seconds of a virtual clock."""

from __future__ import annotations

import itertools

import pytest
from tunnel_world import DELAY_NS, KEYS, World, connected, inner, kinds, pair, peer_of

from tunnel.constants import REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES
from tunnel.effects import Happening, Received, Unsent
from tunnel.messages import MessageKind, kind_of
from tunnel.primitives import Cipher, TransportKey
from wire.drop import Drop
from wire.units import SECOND_NS


def until(world: World, second: float) -> None:
    world.run(second - world.seconds)


def both_ways(world: World, mark: int = 0) -> None:
    world.send(world.nodes["alice"], "bob", inner(mark=mark))
    world.send(world.nodes["bob"], "alice", inner(mark=mark, source="10.0.0.2"))


def lose_everything(world: World) -> None:
    world.fate = lambda datagram: []


def test_w7_initiator_rekeys_when_it_sends_after_120_s() -> None:
    world, alice, bob = connected()
    until(world, 119.9)
    both_ways(world)
    until(world, 120.1)
    assert len(world.sent("alice", MessageKind.INITIATION)) == 1
    world.send(alice, "bob", inner(mark=5))
    until(world, 121)
    assert len(world.sent("alice", MessageKind.INITIATION, since=120)) == 1
    assert bob.packets[-1] == ("alice", inner(mark=5))
    assert alice.happened(Happening.SESSION) == bob.happened(Happening.SESSION) == 2


def test_w7_responder_never_rekeys_for_age() -> None:
    world, alice, bob = connected()
    until(world, 121)
    world.send(bob, "alice", inner(source="10.0.0.2"))
    until(world, 122)
    assert alice.packets == [("bob", inner(source="10.0.0.2"))]
    assert world.sent("bob", MessageKind.INITIATION) == []
    until(world, 130)
    assert world.sent("bob", MessageKind.INITIATION) == []


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_w7_either_side_rekeys_after_2_to_the_60_messages(name: str) -> None:
    world, alice, bob = connected()
    node, other = (alice, "bob") if name == "alice" else (bob, "alice")
    until(world, 20)
    session = node.tunnel._by_name[other].slots.current
    assert session is not None
    session.counter = REKEY_AFTER_MESSAGES - 2
    assert kinds(world.send(node, other, inner())) == [MessageKind.DATA]
    assert kinds(world.send(node, other, inner())) == [MessageKind.DATA, MessageKind.INITIATION]


def test_w8_old_keys_neither_send_nor_accept_after_180_s() -> None:
    world, alice, bob = connected()
    until(world, 20)
    lose_everything(world)
    early, late = (
        bob.tunnel.send("alice", [inner(source="10.0.0.2", mark=mark)], world.now).datagrams[0][1] for mark in (1, 2)
    )
    until(world, 179.9)
    assert alice.tunnel.receive([Received(early, bob.home)], world.now).packets == [
        ("bob", inner(source="10.0.0.2", mark=1))
    ]
    until(world, 180.1)
    effects = alice.tunnel.receive([Received(late, bob.home)], world.now)
    assert effects.drops == {Drop.TUNNEL_EXPIRED: 1}
    assert effects.packets == []
    for node, other in ((alice, "bob"), (bob, "alice")):
        assert MessageKind.DATA not in kinds(world.send(node, other, inner()))
        status = node.tunnel.status(world.now)[0]
        assert status.staged == 1
        assert not status.has_session
    until(world, 187)
    assert world.sent("alice", MessageKind.INITIATION, since=180)


def test_w8_last_counter_is_never_passed() -> None:
    world, alice, bob = connected()
    until(world, 20)
    session = alice.tunnel._by_name["bob"].slots.current
    assert session is not None
    session.counter = REJECT_AFTER_MESSAGES - 2
    effects = world.send(alice, "bob", *[inner(mark=mark) for mark in range(5)])
    assert kinds(effects) == [MessageKind.DATA, MessageKind.DATA, MessageKind.INITIATION]
    last = int.from_bytes(effects.datagrams[1][1][8:16], "little")
    assert last == REJECT_AFTER_MESSAGES - 1
    world.run(1)
    assert [packet for _, packet in bob.packets[1:]] == [inner(mark=mark) for mark in range(5)]


def test_w9_initiator_that_still_hears_at_165_s_asks_for_one_new_handshake() -> None:
    world, _, bob = connected()
    until(world, 164.5)
    world.send(bob, "alice", inner(source="10.0.0.2"))
    until(world, 164.9)
    assert len(world.sent("alice", MessageKind.INITIATION)) == 1
    until(world, 166)
    for mark in range(3):
        world.send(bob, "alice", inner(source="10.0.0.2", mark=mark))
    until(world, 170)
    assert len(world.sent("alice", MessageKind.INITIATION)) == 2
    assert world.sent("bob", MessageKind.INITIATION) == []


def test_w9_responder_that_still_hears_at_165_s_does_nothing() -> None:
    world, alice, bob = connected()
    world.fate = lambda datagram: [] if len(datagram) == 148 else [DELAY_NS]
    until(world, 166)
    world.send(alice, "bob", inner(mark=1))
    until(world, 175)
    assert bob.packets[-1] == ("alice", inner(mark=1))
    assert world.sent("bob", MessageKind.INITIATION) == []


def test_w10_twenty_initiations_5_s_apart_then_silence_until_the_next_packet() -> None:
    world, alice, _ = pair()
    lose_everything(world)
    world.send(alice, "bob", inner(mark=1))
    for _ in range(60):
        world.run(1.7)
        if not alice.happened(Happening.GAVE_UP):
            world.send(alice, "bob", inner(mark=2))
    until(world, 125)
    initiations = world.sent("alice", MessageKind.INITIATION)
    pauses = [after.at - before.at for before, after in itertools.pairwise(initiations)]
    assert all(5 <= pause <= 5.334 for pause in pauses)
    assert len(set(pauses)) > 10
    gave_up = alice.happened(Happening.GAVE_UP)
    assert gave_up == 1
    assert len(initiations) == 20
    assert alice.tunnel.status(world.now)[0].has_given_up
    assert alice.unsent[0] == Unsent("bob", inner(mark=1), Drop.TUNNEL_GAVE_UP)
    assert {unsent.reason for unsent in alice.unsent} == {Drop.TUNNEL_GAVE_UP}
    until(world, 600)
    assert len(world.sent("alice", MessageKind.INITIATION)) == 20
    world.fate = lambda datagram: [DELAY_NS]
    world.send(alice, "bob", inner(mark=3))
    world.run(1)
    assert world.nodes["bob"].packets == [("alice", inner(mark=3))]
    assert not alice.tunnel.status(world.now)[0].has_given_up


def test_w10_call_restarts_without_a_packet_and_never_within_5_s() -> None:
    world, alice, _ = pair()
    lose_everything(world)
    assert kinds(alice.tunnel.call("bob", world.now)) == [MessageKind.INITIATION]
    for _ in range(40):
        world.now += SECOND_NS // 10
        assert kinds(alice.tunnel.call("bob", world.now)) == []


def test_w11_keepalive_once_10_s_after_data_that_nothing_answered() -> None:
    world, _, _bob = connected()
    until(world, 9.9)
    assert world.keepalives("bob") == []
    until(world, 60)
    assert [round(line.at, 1) for line in world.keepalives("bob")] == [10.0]
    assert len(world.keepalives("bob")[0].datagram) == 32
    assert world.keepalives("alice") == []


def test_w11_data_sent_meanwhile_is_the_keepalive() -> None:
    world, _alice, bob = connected()
    until(world, 5)
    world.send(bob, "alice", inner(source="10.0.0.2"))
    until(world, 14.9)
    assert world.keepalives("bob") == world.keepalives("alice") == []
    until(world, 60)
    assert [round(line.at, 1) for line in world.keepalives("alice")] == [15.0]
    assert world.keepalives("bob") == []


def test_w12_unanswered_data_means_a_new_handshake_after_15_s() -> None:
    world, alice, _ = connected()
    until(world, 30)
    lose_everything(world)
    world.send(alice, "bob", inner())
    until(world, 40)
    world.send(alice, "bob", inner())
    until(world, 44.9)
    assert len(world.sent("alice", MessageKind.INITIATION)) == 1
    until(world, 45.4)
    assert len(world.sent("alice", MessageKind.INITIATION)) == 2


def test_w12_keepalive_of_the_peer_is_an_answer() -> None:
    world, alice, _ = connected()
    until(world, 30)
    world.send(alice, "bob", inner())
    until(world, 100)
    assert len(world.sent("alice", MessageKind.INITIATION)) == 1


def test_w13_persistent_keepalive_begins_at_once_and_is_reset_by_any_traffic() -> None:
    world, alice, bob = pair(keepalive_s=25)
    until(world, 1)
    assert len(world.sent("alice", MessageKind.INITIATION)) == 1
    until(world, 20)
    world.send(bob, "alice", inner(source="10.0.0.2"))
    until(world, 29)
    assert len(world.keepalives("alice")) == 1
    until(world, 31)
    assert [round(line.at) for line in world.keepalives("alice")] == [0, 30]
    until(world, 90)
    assert [round(line.at) for line in world.keepalives("alice")] == [0, 30, 55, 80]
    assert alice.tunnel.status(world.now)[0].persistent_keepalive_s == 25


def test_w13_a_keepalive_that_waited_for_an_endpoint_begins_with_the_reload_that_writes_one() -> None:
    world = World()
    alice = world.add("alice", peer_of("bob", known=False, persistent_keepalive_s=25))
    world.add("bob", peer_of("alice", known=False))
    until(world, 60)
    assert not world.log
    world.carry(alice, alice.tunnel.set_peers([peer_of("bob", persistent_keepalive_s=25)], world.now))
    until(world, 90)
    assert [round(line.at) for line in world.sent("alice", MessageKind.INITIATION)] == [60]
    assert [round(line.at) for line in world.keepalives("alice")] == [60, 85]


def test_w13_off_means_silence() -> None:
    world, _, _ = connected()
    until(world, 20)
    seen = len(world.log)
    until(world, 500)
    assert len(world.log) == seen


def test_a_peer_that_called_just_now_counts_as_silent_only_after_initiations_of_ours() -> None:
    world = World()
    world.add("alice", peer_of("bob"))
    bob = world.add("bob", peer_of("alice"))
    world.fate = lambda datagram: [DELAY_NS] if kind_of(datagram) is MessageKind.INITIATION else []
    world.send(world.nodes["alice"], "bob", inner())
    until(world, 1)
    world.fate = lambda datagram: []
    world.send(bob, "alice", inner(source="10.0.0.2"))  # waits for what our response, which is lost, brings
    until(world, 20)
    assert len(world.sent("bob", MessageKind.INITIATION)) == 3
    assert bob.happened(Happening.UNANSWERED) == 0
    until(world, 28)
    assert bob.happened(Happening.UNANSWERED) == 1


def test_w14_keys_are_zero_540_s_after_the_last_new_one() -> None:
    world, alice, bob = connected()
    held = [
        key
        for node in (alice, bob)
        for session in node.tunnel._indices.sessions.values()
        for key in (session.keys.send, session.keys.receive)
    ]
    assert len(held) == 4
    until(world, 539)
    assert not any(key.is_wiped for key in held)
    until(world, 541)
    assert all(key.is_wiped for key in held)
    assert alice.happened(Happening.ERASED) == bob.happened(Happening.ERASED) == 1
    assert alice.tunnel._indices.sessions == {}
    world.send(alice, "bob", inner(mark=8))
    world.run(1)
    assert bob.packets[-1] == ("alice", inner(mark=8))


def test_w14_ephemeral_key_of_a_handshake_in_vain_is_zero_at_once_when_it_ends() -> None:
    world, alice, _ = pair()
    lose_everything(world)
    world.send(alice, "bob", inner())
    pending = alice.tunnel._by_name["bob"].handshake.pending
    assert pending is not None
    assert any(pending.ephemeral)
    until(world, 6)
    assert not any(pending.ephemeral + pending.chain)
    until(world, 120)
    assert alice.tunnel._indices.pending == {}
    assert alice.tunnel._by_name["bob"].handshake.pending is None


def test_w14_close_wipes_everything() -> None:
    world, alice, _ = connected()
    key = next(iter(alice.tunnel._indices.sessions.values())).keys.send
    local = alice.tunnel._common.local
    assert any(local.private)
    remote = alice.tunnel._by_name["bob"].handshake.keys
    alice.tunnel.close()
    assert key.is_wiped
    assert not any(local.private + remote.static_static + remote.psk)
    assert alice.tunnel.next_deadline() is None
    assert alice.tunnel.send("bob", [inner()], world.now).drops == {Drop.TUNNEL_NO_PEER: 1}


def test_w15_responder_sends_under_the_old_session_until_the_new_one_is_confirmed() -> None:
    world, alice, bob = connected()
    until(world, 121)
    world.fate = lambda datagram: [] if len(datagram) == 32 or len(datagram) > 1000 else [DELAY_NS]  # and no probe
    old = world.sent("alice", MessageKind.INITIATION)[0].datagram[4:8]
    world.send(alice, "bob", inner(mark=1))
    until(world, 121.5)
    assert len(world.sent("bob", MessageKind.RESPONSE)) == 2
    world.send(bob, "alice", inner(source="10.0.0.2", mark=2))
    assert world.log[-1].datagram[4:8] == old
    until(world, 122)
    assert alice.packets == [("bob", inner(source="10.0.0.2", mark=2))]
    world.send(alice, "bob", inner(mark=3))
    until(world, 123)
    world.send(bob, "alice", inner(source="10.0.0.2", mark=4))
    assert world.log[-1].datagram[4:8] != old


def test_w15_responder_without_an_old_session_queues_until_the_new_one_is_confirmed() -> None:
    world, alice, bob = pair()
    first = alice.tunnel.send("bob", [inner()], world.now)
    answer = bob.tunnel.receive([Received(first.datagrams[0][1], alice.home)], world.now)
    assert kinds(bob.tunnel.send("alice", [inner(source="10.0.0.2")], world.now)) == []
    confirmation = alice.tunnel.receive([Received(answer.datagrams[0][1], bob.home)], world.now)
    assert kinds(bob.tunnel.receive([Received(confirmation.datagrams[0][1], alice.home)], world.now)) == [
        MessageKind.DATA
    ]


def test_w15_responder_that_is_never_confirmed_calls_itself() -> None:
    world, alice, bob = pair()
    first = alice.tunnel.send("bob", [inner()], world.now)
    bob.tunnel.receive([Received(first.datagrams[0][1], alice.home)], world.now)
    alice.tunnel.close()
    world.nodes.pop("alice")
    world.carry(bob, bob.tunnel.send("alice", [inner(source="10.0.0.2")], world.now))
    world.run(5.4)
    assert len(world.sent("bob", MessageKind.INITIATION)) == 1


@pytest.mark.parametrize("staged", [0, 1, 3])
def test_w16_initiator_confirms_with_data_or_a_keepalive_at_once(staged: int) -> None:
    world, alice, bob = pair()
    first = alice.tunnel.call("bob", world.now)
    alice.tunnel.send("bob", [inner(mark=mark) for mark in range(staged)], world.now)
    answer = bob.tunnel.receive([Received(first.datagrams[0][1], alice.home)], world.now)
    confirmation = alice.tunnel.receive([Received(answer.datagrams[0][1], bob.home)], world.now)
    assert [len(datagram) for _, datagram, _ in confirmation.datagrams] == ([64] * staged or [32])
    assert not bob.tunnel.status(world.now)[0].has_session
    effects = bob.tunnel.receive(
        [Received(datagram, alice.home) for _, datagram, _ in confirmation.datagrams], world.now
    )
    assert [packet for _, packet in effects.packets] == [inner(mark=mark) for mark in range(staged)]
    assert bob.tunnel.status(world.now)[0].has_session


def test_w17_late_packets_under_the_previous_session_are_taken_for_180_s() -> None:
    world, alice, bob = connected()
    until(world, 121)
    late = [alice.tunnel.send("bob", [inner(mark=mark)], world.now).datagrams[0][1] for mark in range(10, 14)]
    world.run(6)
    world.send(alice, "bob", inner(mark=1))
    world.run(1)
    assert bob.happened(Happening.SESSION) == 2
    effects = bob.tunnel.receive([Received(datagram, alice.home) for datagram in reversed(late[1:])], world.now)
    assert [packet for _, packet in effects.packets] == [inner(mark=mark) for mark in (13, 12, 11)]
    until(world, 179.9)
    assert bob.tunnel.receive([Received(late[0], alice.home)], world.now).packets == [("alice", inner(mark=10))]
    until(world, 180.1)
    assert bob.tunnel.receive([Received(late[0], alice.home)], world.now).drops == {Drop.TUNNEL_EXPIRED: 1}


def test_w17_previous_session_is_still_heard_while_the_next_one_waits() -> None:
    world, alice, bob = connected()
    until(world, 60)
    late = alice.tunnel.send("bob", [inner(mark=10)], world.now).datagrams[0][1]
    world.carry(alice, alice.tunnel.call("bob", world.now))
    until(world, 70)
    assert bob.happened(Happening.SESSION) == 2
    initiation = alice.tunnel.call("bob", world.now).datagrams[0][1]
    assert kinds(bob.tunnel.receive([Received(initiation, alice.home)], world.now)) == [MessageKind.RESPONSE]
    assert bob.tunnel.receive([Received(late, alice.home)], world.now).packets == [("alice", inner(mark=10))]


def test_w17_both_call_at_once_and_both_are_heard() -> None:
    world = World(3)
    alice = world.add("alice", peer_of("bob"))
    bob = world.add("bob", peer_of("alice"))
    for second in range(400):
        both_ways(world, mark=second)
        world.run(1)
    assert len(alice.packets) == len(bob.packets) == 400
    assert alice.drops == bob.drops == {}


def test_w20_counters_begin_at_zero_and_never_come_twice_under_a_key() -> None:
    class Recording(Cipher):
        nonces: list[tuple[bytes, int]] = []  # noqa: RUF012 # all instances write one log

        def seal_burst(
            self, key: TransportKey, receiver: int, first: int, packets: object, mtu_bytes: int
        ) -> list[bytes]:
            secret = bytes(key._secret)
            self.nonces += [(secret, first + number) for number in range(len(packets))]
            return super().seal_burst(key, receiver, first, packets, mtu_bytes)

    world, alice, bob = pair()
    for node in (alice, bob):
        node.tunnel._common.cipher = Recording()
    for step in range(300):
        both_ways(world, mark=step)
        world.run(2)
        if step % 50 == 20:
            node, other = (alice, "bob") if step % 100 == 20 else (bob, "alice")
            world.restart(node, peer_of(other, known=True))
            node.tunnel._common.cipher = Recording()
    by_key: dict[bytes, list[int]] = {}
    for secret, counter in Recording.nonces:
        by_key.setdefault(secret, []).append(counter)
    assert len(by_key) > 10
    assert all(counters == list(range(len(counters))) for counters in by_key.values())
    assert len(alice.packets) > 280
    assert len(bob.packets) > 280


def test_w23_endpoint_follows_authenticated_messages_of_every_kind() -> None:
    world, alice, bob = connected()
    for number, port in enumerate((4001, 4002), start=1):
        world.roam(alice, f"198.51.100.{number}", port)
        world.send(alice, "bob", inner(mark=number))
        world.run(1)
        assert bob.tunnel.status(world.now)[0].endpoint == alice.home
        world.send(bob, "alice", inner(source="10.0.0.2", mark=number))
        world.run(1)
        assert alice.packets[-1] == ("bob", inner(source="10.0.0.2", mark=number))
    assert bob.happened(Happening.MOVED) == 3
    until(world, 130)
    world.roam(alice, "198.51.100.9")
    alice.tunnel.call("bob", world.now - 1)
    world.run(6)
    assert bob.tunnel.status(world.now)[0].endpoint == alice.home
    world.roam(bob, "198.51.100.10")
    world.send(bob, "alice", inner(source="10.0.0.2"))
    world.run(1)
    assert alice.tunnel.status(world.now)[0].endpoint == bob.home


def test_w23_forged_and_replayed_and_cookie_messages_do_not_move_it() -> None:
    world, alice, bob = connected()
    recorded = [line.datagram for line in world.log if line.by == "alice"]
    good = alice.tunnel.send("bob", [inner()], world.now).datagrams[0][1]
    other = alice.home._replace(port=1)
    bob.tunnel.receive(
        [Received(datagram, other) for datagram in [*recorded, good[:-1] + bytes([good[-1] ^ 1])]], world.now
    )
    assert bob.tunnel.status(world.now)[0].endpoint == alice.home


def test_restarted_peer_takes_over_its_own_session_at_once() -> None:
    world, alice, bob = connected()
    until(world, 10)
    world.restart(alice, peer_of("bob"))
    world.send(alice, "bob", inner(mark=1))
    world.run(0.1)
    assert bob.packets[-1] == ("alice", inner(mark=1))
    world.send(bob, "alice", inner(source="10.0.0.2", mark=2))
    world.run(0.1)
    assert alice.packets == [("bob", inner(source="10.0.0.2", mark=2))]


def test_restarted_responder_is_found_again_after_15_s() -> None:
    world, alice, bob = connected()
    until(world, 30)
    world.restart(bob, peer_of("alice", known=False))
    world.send(alice, "bob", inner(mark=1))
    until(world, 46)
    assert bob.drops == {Drop.TUNNEL_UNKNOWN_INDEX: 1}
    world.send(alice, "bob", inner(mark=2))
    world.run(1)
    assert bob.packets[-1] == ("alice", inner(mark=2))


def test_deadlines_are_none_without_work_and_keys_are_not_shown() -> None:
    world, alice, _ = pair()
    assert alice.tunnel.next_deadline() is None
    config = peer_of("bob", psk=b"secret-psk" + bytes(22))
    assert "secret" not in repr(config)
    assert KEYS["alice"].hex() not in repr(alice.tunnel.status(world.now))
