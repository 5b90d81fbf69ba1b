"""An ARP frame teaches, or may not teach, and is answered or not: rows A1-A12, A15, A25, A27-A29."""

from __future__ import annotations

import pytest
from arp_bench import (
    A_MAC,
    B_MAC,
    BAD_SENDER,
    EVERYBODY,
    LOCKED,
    MALFORMED,
    NOBODY,
    NOT_FOR_US,
    OTHER_MAC,
    OWN,
    OWN_MAC,
    REPLY,
    REQUEST,
    A,
    B,
    Bench,
    C,
    announces,
    answers,
    arp_frame,
    asks,
)

from arp.effects import EntryChanged
from wire.units import address_int, seconds_ns

BOTH_ASKED = ["ask 02:aa:00:00:00:0a for 192.168.200.10", "ask all for 192.168.200.10"]
ANSWER_TO_A = ["reply to 02:aa:00:00:00:0a: 192.168.200.2 is ours, 192.168.200.10 at 02:aa:00:00:00:0a"]


def test_a1_reception_follows_the_order_of_rfc_826() -> None:
    bench = Bench()
    # formats first: nothing is learned from what is not understood
    assert bench.hears(arp_frame(REQUEST, A, A_MAC, OWN, head=b"\0\x02\x08\0\x06\x04"), 0) == MALFORMED
    assert bench.port.used == 0
    # an unknown sender is added where we are the target, before the opcode says what to do
    assert bench.hears(answers(A, A_MAC), 1) == []
    assert (bench.state(A, 1), bench.mac(A, 1)) == ("stale", A_MAC)
    # a known sender is merged although we are not the target
    bench.hears(asks(A, OTHER_MAC, C), 10)
    assert bench.mac(A, 10) == OTHER_MAC
    # a request is answered last, by the port that heard it
    assert bench.hears(asks(B, B_MAC), 11) == [
        "reply to 02:aa:00:00:00:0b: 192.168.200.2 is ours, 192.168.200.11 at 02:aa:00:00:00:0b"
    ]
    assert [change.change for change in bench.changes] == ["learned", "changed", "learned"]


@pytest.mark.parametrize("opcode", [1, 2, 3, 8, 9, 25])
def test_a2_known_sender_is_updated_whoever_is_the_target_and_whatever_the_opcode(opcode: int) -> None:
    bench = Bench()
    bench.hears(asks(A, A_MAC), 0)
    bench.hears(arp_frame(opcode, A, OTHER_MAC, C), 5)
    assert (bench.state(A, 5), bench.mac(A, 5)) == ("stale", OTHER_MAC)


def test_a3_unknown_sender_makes_no_entry_where_we_are_not_the_target() -> None:
    bench = Bench()
    assert bench.hears(asks(A, A_MAC, C), 0) == NOT_FOR_US
    assert bench.hears(announces(A, A_MAC), 0) == NOT_FOR_US
    assert bench.hears(arp_frame(REPLY, A, A_MAC, A, target_mac=A_MAC), 0) == NOT_FOR_US
    assert bench.port.used == 0


def test_a4_request_for_us_is_answered_to_its_sender_with_swapped_fields_and_padding() -> None:
    (effect,) = [e for e in Bench().port.receive(asks(A, A_MAC), 0) if not isinstance(e, EntryChanged)]
    ours, theirs = OWN.to_bytes(4, "big"), A.to_bytes(4, "big")
    body = b"\0\x01\x08\0\x06\x04\0\x02" + OWN_MAC + ours + A_MAC + theirs
    assert effect == (A_MAC + OWN_MAC + b"\x08\x06" + body + bytes(18),)


def test_a5_probe_for_our_address_is_answered_and_leaves_no_trace() -> None:
    bench = Bench()
    assert bench.hears(asks(0, A_MAC), 0) == [
        "reply to 02:aa:00:00:00:0a: 192.168.200.2 is ours, 0.0.0.0 at 02:aa:00:00:00:0a"
    ]
    assert bench.hears(asks(0, A_MAC, B), 0) == NOT_FOR_US
    assert bench.hears(arp_frame(REPLY, 0, A_MAC, OWN), 0) == BAD_SENDER
    assert (bench.port.used, bench.changes) == (0, [])


@pytest.mark.parametrize("target", ["192.168.1.2", "192.168.192.211", "192.168.200.12"])
def test_a6_a_request_for_any_other_address_is_not_answered(target: str) -> None:
    """Another port's address of ours is any other address to this one."""
    assert Bench().hears(asks(A, A_MAC, address_int(target)), 0) == NOT_FOR_US


def test_a7_hardware_types_1_and_6_are_answered_in_kind() -> None:
    bench = Bench()
    assert bench.hears(asks(A, A_MAC), 0) == ANSWER_TO_A
    (effect,) = bench.port.receive(arp_frame(REQUEST, A, A_MAC, OWN, head=b"\0\x06\x08\0\x06\x04"), 1)
    frame = effect[0]
    assert isinstance(frame, bytes)
    assert frame[14:16] == b"\0\x06"


@pytest.mark.parametrize(
    "head",
    [
        b"\0\x02\x08\0\x06\x04",
        b"\0\x00\x08\0\x06\x04",
        b"\0\x01\x86\xdd\x06\x04",
        b"\0\x01\x08\0\x05\x04",
        b"\0\x01\x08\0\x06\x06",
        b"\0\x01\x08\0\x00\x00",
    ],
)
def test_a7_any_other_format_is_malformed(head: bytes) -> None:
    bench = Bench()
    assert bench.hears(arp_frame(REQUEST, A, A_MAC, OWN, head=head), 0) == MALFORMED
    assert bench.port.used == 0


def test_a7_short_packet_is_malformed_and_padding_is_not_looked_at() -> None:
    bench = Bench()
    whole = arp_frame(REQUEST, A, A_MAC, OWN, padding=b"")
    for length in range(14, len(whole)):
        assert bench.hears(whole[:length], 0) == MALFORMED, f"{length} bytes"
    assert bench.hears(whole[:13], 0) == ["dropped: eth.short"]
    assert bench.port.used == 0
    assert bench.hears(whole, 0) == ANSWER_TO_A
    assert bench.hears(arp_frame(REQUEST, A, A_MAC, OWN, padding=b"\xff" * 1472), 0) == ANSWER_TO_A
    assert bench.words(bench.port.receive(memoryview(whole), 0)) == ANSWER_TO_A


@pytest.mark.parametrize("opcode", [0, 3, 4, 8, 9, 25, 65535])
def test_a8_other_opcodes_get_no_answer_and_make_no_entry(opcode: int) -> None:
    bench = Bench()
    for sender in (A, 0, OWN):
        assert bench.hears(arp_frame(opcode, sender, A_MAC, OWN), 0) == ["dropped: arp.opcode"]
    assert (bench.port.used, bench.port.conflicts) == (0, 0)


@pytest.mark.parametrize("mac", [EVERYBODY, NOBODY, b"\x01\x00\x5e\0\0\x01", b"\x33\x33\0\0\0\x01", OWN_MAC])
def test_a9_a_mac_address_that_is_no_other_station_is_neither_cached_nor_answered(mac: bytes) -> None:
    bench = Bench()
    for frame in (
        arp_frame(REQUEST, A, mac, OWN, link_source=A_MAC),
        arp_frame(REQUEST, 0, mac, OWN, link_source=A_MAC),
        arp_frame(REPLY, A, mac, OWN, to=OWN_MAC, link_source=A_MAC),
    ):
        assert bench.hears(frame, 0) == BAD_SENDER
    assert bench.port.used == 0
    bench.knows(A, A_MAC, 1)
    assert bench.hears(arp_frame(REQUEST, A, mac, A, link_source=A_MAC), 5) == BAD_SENDER
    assert bench.finds(A, 5) == A_MAC


@pytest.mark.parametrize(
    "sender",
    ["192.168.200.0", "192.168.200.255", "127.0.0.1", "224.0.0.1", "255.255.255.255"],
)
def test_a10_sender_that_is_no_host_at_all_is_never_cached(sender: str) -> None:
    bench = Bench()
    for frame in (asks(address_int(sender), A_MAC), answers(address_int(sender), A_MAC)):
        assert bench.hears(frame, 0) == BAD_SENDER
    assert bench.port.used == 0


@pytest.mark.parametrize("sender", ["10.9.9.9", "192.168.201.10", "192.168.199.255"])
def test_a10_a_neighbour_that_asks_under_an_address_of_another_subnet_is_answered_and_not_cached(sender: str) -> None:
    bench = Bench()
    assert len(bench.hears(asks(address_int(sender), A_MAC), 0)) == 1
    assert bench.hears(answers(address_int(sender), A_MAC), 0) == BAD_SENDER
    assert bench.port.used == 0
    told = [bench.hears(asks(address_int(sender), A_MAC), 0)[0] for _ in range(1200)]
    assert 990 <= sum(words.startswith("reply") for words in told) <= 1000  # strangers share a bucket


def test_a10_our_own_address_is_never_cached() -> None:
    bench = Bench()
    bench.hears(asks(OWN, OTHER_MAC, B), 0)
    bench.hears(answers(OWN, OTHER_MAC), 0)
    assert bench.port.used == 0
    assert bench.finds(OWN, 0) is None


def test_a11_the_sender_in_the_packet_counts_and_a_different_ethernet_source_is_counted() -> None:
    bench = Bench()
    assert bench.hears(arp_frame(REQUEST, A, A_MAC, OWN, link_source=OTHER_MAC), 0) == ANSWER_TO_A
    assert bench.finds(A, 0) == A_MAC
    assert bench.port.sender_mismatches == 1
    bench.hears(asks(A, A_MAC), 1)
    assert bench.port.sender_mismatches == 1


def test_a12_frame_for_another_station_is_ignored() -> None:
    bench = Bench()
    assert bench.hears(arp_frame(REQUEST, A, A_MAC, OWN, to=OTHER_MAC), 0) == ["dropped: eth.not_for_us"]
    assert bench.port.used == 0


@pytest.mark.parametrize("opcode", [REQUEST, REPLY])
@pytest.mark.parametrize("target_mac", [NOBODY, EVERYBODY, OTHER_MAC])
def test_a15_gratuitous_arp_of_both_forms_updates_an_entry_and_never_makes_one(opcode: int, target_mac: bytes) -> None:
    bench = Bench()
    bench.hears(asks(A, A_MAC), 0)
    assert bench.hears(arp_frame(opcode, A, OTHER_MAC, A, target_mac=target_mac), 2) == BOTH_ASKED, "nobody uses it"
    assert (bench.state(A, 2), bench.finds(A, 2)) == ("stale", OTHER_MAC)
    assert bench.changes[-1] == EntryChanged(A, OTHER_MAC, "stale", "changed")
    bench.hears(arp_frame(opcode, B, B_MAC, B, target_mac=target_mac), 2)
    assert bench.state(B, 2) is None


def test_a25_only_an_answer_to_our_own_question_makes_an_entry_reachable() -> None:
    bench = Bench()
    bench.hears(answers(A, A_MAC), 0)  # nobody asked
    assert bench.state(A, 0) == "stale"
    bench.holds(B, "frame", 0)
    bench.hears(arp_frame(REPLY, B, B_MAC, OWN, to=EVERYBODY), 0)  # asked, but the answer is not to us alone
    assert bench.state(B, 0) == "delay"
    bench.holds(C, "frame", 0)
    bench.hears(answers(C, OTHER_MAC), 0)
    assert bench.state(C, 0) == "reachable"
    assert bench.state(C, 29.999) == "reachable"
    assert bench.state(C, 30) == "stale"
    bench.hears(answers(A, A_MAC), 31)
    assert bench.state(A, 31) == "stale", "it never answered a question of ours"


def test_a25_unsolicited_reply_changes_the_mac_address_of_an_idle_entry_to_stale_only() -> None:
    bench = Bench()
    bench.knows(A, A_MAC, 0)
    assert bench.hears(answers(A, OTHER_MAC), 35) == BOTH_ASKED
    assert (bench.state(A, 35), bench.mac(A, 35)) == ("stale", OTHER_MAC)


@pytest.mark.parametrize("opcode", [REQUEST, REPLY])
def test_a25_static_entry_is_never_overwritten(opcode: int) -> None:
    bench = Bench(static={A: A_MAC})
    forged = arp_frame(opcode, A, OTHER_MAC, OWN, to=OWN_MAC)
    assert bench.hears(forged, 100)[0] in LOCKED
    bench.words(bench.port.probe(A, seconds_ns(200)))  # not even while we ask ourselves
    assert bench.hears(forged, 200)[0] in LOCKED
    assert (bench.state(A, 300), bench.finds(A, 300)) == ("static", A_MAC)
    assert bench.changes == [EntryChanged(A, A_MAC, "static", "refused", OTHER_MAC)], "told once"


def test_a25_host_with_a_static_entry_is_answered_where_it_asks_from() -> None:
    bench = Bench(static={A: A_MAC})
    assert bench.hears(asks(A, OTHER_MAC), 0) == [
        *LOCKED,
        "reply to 02:bb:00:00:00:01: 192.168.200.2 is ours, 192.168.200.10 at 02:bb:00:00:00:01",
    ]


def test_a27_a_flood_of_strangers_mutes_neither_known_hosts_nor_our_own_questions() -> None:
    bench = Bench(address=address_int("172.16.0.2"), prefix_length=16)
    own, known, asked, late = (address_int(f"172.16.{host}") for host in ("0.2", "0.10", "0.11", "0.12"))

    def request(sender: int, mac: bytes) -> bytes:
        return arp_frame(REQUEST, sender, mac, own)

    bench.hears(request(known, A_MAC), 0)
    bench.holds(asked, "frame", 1)
    outcomes = [bench.hears(request(own + 100 + i, OTHER_MAC), 1 + i / 10_000)[0] for i in range(10_000)]
    limited = outcomes.count("dropped: arp.rate_limited")
    assert 7_900 < limited < 8_100  # a burst of 1000, then 1000 a second
    assert bench.hears(request(late, B_MAC), 1.9999) == ["dropped: arp.rate_limited"]
    assert bench.hears(request(known, A_MAC), 1.9999)[0].startswith("reply to 02:aa:00:00:00:0a")
    told = bench.hears(arp_frame(REQUEST, known, OTHER_MAC, known), 1.9999)
    assert told == ["ask 02:aa:00:00:00:0a for 172.16.0.10", "ask all for 172.16.0.10"], "it may even move"
    reply = arp_frame(REPLY, asked, B_MAC, own, to=OWN_MAC)
    assert bench.hears(reply, 1.9999) == ["release frame to 02:aa:00:00:00:0b"]
    assert (bench.finds(known, 2), bench.finds(asked, 2)) == (OTHER_MAC, B_MAC)
    assert bench.hears(request(late, B_MAC), 3)[0].startswith("reply to 02:aa:00:00:00:0b")


def test_a27_refused_claims_and_probes_are_limited_too() -> None:
    bench = Bench(static={A: A_MAC})
    outcomes = [bench.hears(asks(A, OTHER_MAC), 0) for _ in range(1001)]
    assert outcomes[-1] == ["dropped: arp.rate_limited"]
    assert outcomes[:-1].count(["dropped: arp.rate_limited"]) == 0
    assert bench.hears(asks(0, OTHER_MAC), 0) == ["dropped: arp.rate_limited"]


def test_a27_what_strangers_say_to_each_other_leaves_room_for_those_who_ask_us() -> None:
    bench = Bench(static={A: A_MAC})
    for _ in range(2000):
        assert bench.hears(asks(B, B_MAC, C), 0) == NOT_FOR_US
        assert bench.hears(asks(A, OTHER_MAC, C), 0) == LOCKED
    assert bench.hears(asks(B, B_MAC), 0)[0].startswith("reply to")


def test_a28_there_is_no_proxy_arp() -> None:
    bench = Bench()
    for target in ("8.8.8.8", "192.168.200.77", "192.168.200.255", "0.0.0.0"):
        assert bench.hears(asks(A, A_MAC, address_int(target)), 0) == NOT_FOR_US


@pytest.mark.parametrize(
    ("ethertype", "reason"),
    [(b"\x81\x00", "ethertype.vlan"), (b"\x00\x24", "ethertype.llc"), (b"\x86\xdd", "ethertype.ipv6")],
)
def test_a29_tagged_and_snap_frames_are_dropped(ethertype: bytes, reason: str) -> None:
    bench = Bench()
    assert bench.hears(arp_frame(REQUEST, A, A_MAC, OWN, ethertype=ethertype), 0) == [f"dropped: {reason}"]
    assert bench.port.used == 0


def test_frames_that_wait_are_released_by_whatever_makes_the_address_known() -> None:
    for frame in (asks(A, A_MAC), announces(A, A_MAC), asks(A, A_MAC, C), answers(A, A_MAC)):
        bench = Bench()
        bench.holds(A, "one", 0)
        bench.holds(A, "two", 0)
        told = bench.hears(frame, 0.1)
        assert told[:2] == ["release one to 02:aa:00:00:00:0a", "release two to 02:aa:00:00:00:0a"]
        assert bench.finds(A, 0.1) == A_MAC
        assert bench.port.waiting_frames == 0


def test_a_port_without_an_address_hears_and_answers_nobody() -> None:
    """D1: tap1 before its lease."""
    bench = Bench(address=0, prefix_length=32)
    for frame in (asks(A, A_MAC, 0), asks(0, A_MAC, 0), announces(A, A_MAC), answers(A, A_MAC), announces(0, A_MAC)):
        assert bench.hears(frame, 0) == ["dropped: arp.not_for_us"]
    assert (bench.port.conflicts, bench.port.used, bench.changes) == (0, 0, [])
    assert not bench.port.is_resolvable(A)
    assert bench.finds(A, 0) is None
    assert bench.port.next_deadline() is None
