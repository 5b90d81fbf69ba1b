"""From a frame that leaves to the answer or its absence, and how entries age: rows A16-A24."""

from __future__ import annotations

import pytest
from arp_bench import A_MAC, B_MAC, OTHER_MAC, OWN, A, B, Bench, C, answers, asks

from arp.effects import EntryChanged
from arp.waiting import WaitingLimits
from wire.units import address_int, mac_text, seconds_ns

ASK_A = "ask all for 192.168.200.10"
POLL_A = "ask 02:aa:00:00:00:0a for 192.168.200.10"


def test_a16_an_entry_ages_from_reachable_to_failed_as_the_clock_and_its_use_say() -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    assert bench.runs_until(29.9) == []
    assert bench.state(A, 29.999) == "reachable"
    assert bench.state(A, 30) == "stale"
    assert bench.finds(A, 40) == A_MAC  # use
    assert bench.state(A, 40) == "delay"
    assert bench.runs_until(44.9) == []
    assert bench.runs_until(45) == [(45.0, POLL_A)]
    assert bench.state(A, 45) == "probe"
    assert bench.runs_until(47.9) == [(46.0, POLL_A), (47.0, POLL_A)]
    assert bench.finds(A, 47.9) == A_MAC
    assert bench.runs_until(48) == []
    assert (bench.state(A, 48), bench.mac(A, 48), bench.finds(A, 48)) == ("failed", None, None)
    assert bench.changes[-1] == EntryChanged(A, None, "failed", "failed")


def test_a16_an_answered_poll_makes_the_entry_reachable_again() -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    bench.finds(A, 31)
    assert bench.runs_until(37) == [(36.0, POLL_A), (37.0, POLL_A)]
    bench.hears(answers(A, A_MAC), 37.2)
    assert bench.state(A, 67.1) == "reachable"
    assert bench.runs_until(67) == []
    assert len(bench.changes) == 1, "the MAC address is the same: nothing to tell"


def test_a17_traffic_keeps_the_old_mac_address_while_it_is_in_question() -> None:
    bench = Bench()
    bench.hears(asks(A, A_MAC), 0)
    for quarter in range(32):
        bench.runs_until(quarter / 4)
        assert bench.finds(A, quarter / 4) == A_MAC
        assert bench.holds(A, quarter, quarter / 4) == [f"release {quarter} to 02:aa:00:00:00:0a"]
    bench.runs_until(8)
    assert bench.finds(A, 8) is None


def test_a18_an_unused_stale_entry_is_not_asked_for_and_goes_after_a_minute() -> None:
    bench = Bench()
    bench.hears(asks(A, A_MAC), 0)
    bench.knows(B, B_MAC, 0)
    assert bench.runs_until(59.9) == []
    assert (bench.state(A, 59.9), bench.state(B, 59.9), bench.port.used) == ("stale", "stale", 2)
    assert bench.runs_until(61) == []
    assert (bench.state(A, 61), bench.finds(A, 61), bench.port.used) == (None, None, 1)
    assert bench.runs_until(91) == []  # stale since 30
    assert (bench.port.used, bench.port.next_deadline()) == (0, None)
    assert bench.changes[-2:] == [
        EntryChanged(A, None, "expired", "expired"),
        EntryChanged(B, None, "expired", "expired"),
    ]


def test_a19_a_thousand_packets_a_second_cause_one_request_a_second_even_after_failure() -> None:
    bench = Bench()
    asked: list[float] = []
    for millisecond in range(10_000):
        t = millisecond / 1000
        asked += [when for when, said in bench.runs_until(t) if said == ASK_A]
        if bench.finds(A, t) is None:
            asked += [t for said in bench.holds(A, millisecond, t) if said == ASK_A]
    assert asked == [float(second) for second in range(10)]


def test_a19_forgetting_an_entry_does_not_forget_when_it_was_last_asked_for() -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    assert bench.port.delete(A)
    assert bench.holds(A, "frame", 0.4) == []
    assert bench.state(A, 0.4) == "incomplete"
    assert bench.runs_until(1.5) == [(1.4, ASK_A)]
    assert bench.port.delete(B) is False


def test_a20_waiting_frames_leave_in_order_and_the_oldest_gives_way() -> None:
    bench = Bench()
    assert bench.holds(A, 0, 0) == [ASK_A]
    for number in range(1, 8):
        assert bench.holds(A, number, 0.1) == []
    assert bench.holds(A, 8, 0.2) == ["gave up 0: arp.superseded"]
    assert bench.hears(answers(A, A_MAC), 0.3) == [f"release {n} to 02:aa:00:00:00:0a" for n in range(1, 9)]
    assert (bench.port.waiting_frames, bench.port.waiting_bytes) == (0, 0)


def test_a21_silent_next_hop_is_asked_three_times_then_every_frame_is_given_up() -> None:
    bench = Bench()
    assert bench.holds(A, "a", 0) == [ASK_A]
    assert bench.holds(A, "b", 2.5) == []
    assert bench.runs_until(100) == [
        (1.0, ASK_A),
        (2.0, ASK_A),
        (3.0, "gave up a: arp.no_answer"),
        (3.0, "gave up b: arp.no_answer"),
    ]
    assert bench.changes == [EntryChanged(A, None, "failed", "failed")]


def test_a22_the_next_frame_after_a_failure_asks_again() -> None:
    bench = Bench()
    bench.holds(A, "a", 0)
    bench.runs_until(3)
    assert bench.state(A, 3) == "failed"
    assert bench.holds(A, "b", 3) == [ASK_A], "the last request left at 2"
    assert bench.runs_until(10) == [(4.0, ASK_A), (5.0, ASK_A), (6.0, "gave up b: arp.no_answer")]
    assert bench.runs_until(66) == []
    assert bench.port.used == 0, "failed entries go after a minute as well"


@pytest.mark.parametrize(
    "address", ["192.168.200.0", "192.168.200.255", "192.168.200.2", "192.168.201.1", "8.8.8.8", "224.0.0.1", "0.0.0.0"]
)
def test_a23_addresses_that_no_other_host_of_the_subnet_can_have_are_never_asked_for(address: str) -> None:
    bench = Bench()
    number = address_int(address)
    assert not bench.port.is_resolvable(number)
    assert bench.finds(number, 0) is None
    assert bench.holds(number, "frame", 0) == ["gave up frame: arp.no_such_host"]
    assert bench.port.probe(number, 0) == []
    assert bench.port.answered(number, 0) is False
    assert bench.port.used == 0


def test_a23_a_subnet_of_two_addresses_has_no_edges() -> None:
    """RFC 3021."""
    bench = Bench(address=OWN, prefix_length=31)
    assert bench.port.is_resolvable(OWN + 1)
    assert not bench.port.is_resolvable(OWN - 1)
    lonely = Bench(address=OWN, prefix_length=32)
    assert not any(lonely.port.is_resolvable(OWN + step) for step in (-1, 0, 1))
    assert lonely.port.slots == 1


def test_a24_a_scan_of_the_subnet_pends_at_most_every_host_with_bounded_frames() -> None:
    bench = Bench()
    network = OWN & ~0xFF
    assert bench.port.slots == 256
    for sweep in range(10):
        for host in range(256):
            bench.holds(network + host, (sweep, host), sweep / 10)
    assert bench.port.used == 253
    assert bench.port.waiting_frames == 253 * 8 <= WaitingLimits().frames_total
    assert bench.port.waiting_bytes <= WaitingLimits().bytes_total
    told = bench.runs_until(100)
    assert sum(said.startswith("ask all") for _, said in told) == 253 * 2
    assert (bench.port.used, bench.port.waiting_frames) == (0, 0)


def test_a24_where_the_room_is_taken_the_frame_is_lost_but_the_question_is_asked() -> None:
    bench = Bench(limits=WaitingLimits(frames_total=2))
    bench.holds(A, "a", 0)
    bench.holds(B, "b", 0)
    assert bench.holds(C, "c", 0) == ["gave up c: arp.queue_full", "ask all for 192.168.200.12"]
    assert bench.holds(A, "newer", 0) == ["gave up a: arp.superseded"], "its own frames give way first"
    assert bench.hears(answers(C, OTHER_MAC), 0.1) == []
    assert bench.finds(C, 0.1) == OTHER_MAC


def test_an_operators_probe_asks_at_once_by_unicast_or_broadcast() -> None:
    bench = Bench(static={C: OTHER_MAC})
    now = seconds_ns(10)
    bench.hears(asks(B, B_MAC), 10)
    assert bench.words(bench.port.probe(A, now)) == [ASK_A]
    assert bench.words(bench.port.probe(B, now)) == ["ask 02:aa:00:00:00:0b for 192.168.200.11"]
    assert bench.words(bench.port.probe(C, now)) == ["ask 02:bb:00:00:00:01 for 192.168.200.12"]
    assert [bench.port.answered(host, now) for host in (A, B, C)] == [None, None, None]
    assert [bench.port.probe(host, now) for host in (A, B, C)] == [[], [], []], "one request a second"
    bench.hears(answers(B, B_MAC), 10.1)
    bench.hears(answers(C, OTHER_MAC), 10.1)
    bench.runs_until(13)
    assert [bench.port.answered(host, seconds_ns(13)) for host in (A, B, C)] == [False, True, True]
    assert [bench.state(host, 13) for host in (A, B, C)] == ["failed", "reachable", "static"]


def test_a_probe_soon_after_a_request_waits_its_turn() -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    assert bench.port.probe(A, seconds_ns(0.5)) == []
    assert bench.port.answered(A, seconds_ns(0.5)) is None
    assert bench.finds(A, 0.5) == A_MAC
    assert bench.hears(answers(A, A_MAC), 0.6) == [], "an answer to nothing that was asked"
    assert bench.port.answered(A, seconds_ns(0.6)) is None
    assert bench.runs_until(1.5) == [(1.5, POLL_A)]
    bench.hears(answers(A, A_MAC), 1.6)
    assert bench.port.answered(A, seconds_ns(1.6)) is True


def test_static_entries_never_age_and_release_what_waits() -> None:
    bench = Bench(static={B: B_MAC})
    assert (bench.finds(B, 1e6), bench.port.next_deadline()) == (B_MAC, None)
    bench.holds(A, "frame", 0)
    assert bench.words(bench.port.add(A, A_MAC)) == ["release frame to 02:aa:00:00:00:0a"]
    assert bench.port.next_deadline() is None
    assert bench.port.flush() == 0
    assert [(entry.ip, entry.static, entry.age_s) for entry in bench.port.entries(10)] == [(A, True, 0), (B, True, 0)]
    assert bench.port.delete(A)
    assert bench.finds(A, 10) is None
    bench.port.add(A, OTHER_MAC)
    bench.port.add(A, A_MAC)
    assert (bench.finds(A, 11), bench.port.used) == (A_MAC, 2)


@pytest.mark.parametrize(
    ("address", "mac"),
    [("192.168.200.2", A_MAC), ("10.0.0.1", A_MAC), ("192.168.200.255", A_MAC)]
    + [("192.168.200.10", mac) for mac in (b"\xff" * 6, bytes(6), b"\x01\0\x5e\0\0\1", b"\x02\0")],
)
def test_an_impossible_static_entry_is_the_operators_mistake(address: str, mac: bytes) -> None:
    with pytest.raises(ValueError, match="static ARP entry"):
        Bench(static={address_int(address): mac})


def test_flush_forgets_what_was_learned_and_leaves_open_questions_alone() -> None:
    bench = Bench(static={C: OTHER_MAC})
    bench.knows(A, A_MAC, 0)
    bench.holds(B, "frame", 0)
    assert bench.port.flush() == 1
    assert (bench.state(A, 0), bench.state(B, 0), bench.state(C, 0)) == (None, "incomplete", "static")
    assert bench.port.delete(B) is False
    assert bench.hears(answers(B, B_MAC), 0.1) == ["release frame to 02:aa:00:00:00:0b"]


def test_entries_tell_address_mac_state_and_age_in_order_of_address() -> None:
    bench = Bench()
    bench.holds(C, "frame", 0)
    bench.hears(asks(B, B_MAC), 0.25)
    bench.knows(A, A_MAC, 0.5)
    assert [tuple(entry) for entry in bench.port.entries(seconds_ns(0.75))] == [
        (A, A_MAC, "reachable", 0.25, False),
        (B, B_MAC, "stale", 0.5, False),
        (C, None, "incomplete", 0.75, False),
    ]


def test_a_late_tick_sends_one_request_and_not_the_missed_ones() -> None:
    bench = Bench()
    bench.holds(A, "frame", 0)
    assert bench.words(bench.port.tick(seconds_ns(50))) == [ASK_A]
    assert bench.port.next_deadline() == seconds_ns(51)


BEYOND = address_int("10.9.9.1")


@pytest.mark.parametrize("prefix_length", [24, 31, 32])
def test_d13_a_gateway_outside_the_subnet_is_a_neighbour_like_any_other(prefix_length: int) -> None:
    bench = Bench(prefix_length=prefix_length, beyond=BEYOND)
    port = bench.port
    assert port.is_resolvable(BEYOND)
    assert not port.is_resolvable(BEYOND + 1)
    assert (port.slot_of(BEYOND), port.slot_of(BEYOND + 1)) == (port.slots - 1, None)
    assert bench.holds(BEYOND, "frame", 0) == ["ask all for 10.9.9.1"]
    assert bench.hears(answers(BEYOND, A_MAC), 0.1) == [f"release frame to {mac_text(A_MAC)}"]
    assert bench.finds(BEYOND, 0.2) == A_MAC
    assert int.from_bytes(port.words[4 * (port.slots - 1)].to_bytes(8, "big")[2:], "big") == int.from_bytes(
        A_MAC, "big"
    )
    assert [(entry.ip, entry.state) for entry in port.entries(seconds_ns(0.2))] == [(BEYOND, "reachable")]
    assert bench.hears(asks(BEYOND, A_MAC), 1)[0].startswith("reply to")
    assert port.delete(BEYOND)
    assert bench.finds(BEYOND, 2) is None


def test_d13_a_gateway_inside_the_subnet_takes_no_slot_of_its_own() -> None:
    assert Bench(beyond=A).port.slots == 256
    assert Bench(beyond=A).port.slot_of(A) == A & 255
