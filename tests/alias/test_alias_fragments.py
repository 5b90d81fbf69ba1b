"""RFC 4787 REQ-14, RFC 1858, RFC 3128: fragments follow their first one."""

from __future__ import annotations

import random
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet import fragment as scapy_fragment
from scapy.packet import Raw

from alias import rewrite
from alias.fragments import DECIDED, WAITING, FragmentKey, FragmentStore, FragmentVerdict
from alias.shelf import ShelfLimits
from tests.alias.nat import A, B, E, Nat, checked
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.units import SECOND_NS, address_int

Store = FragmentStore[str, str]
NOW = 1_000 * SECOND_NS


def key_of(packet: Packet, port: str = "tap0") -> FragmentKey:
    return (port, packet.source, packet.destination, packet.protocol, packet.identification)


def piece(start: int, size: int, *, more: bool = True, source: str = A, identification: int = 7) -> Packet:
    """A UDP fragment with `size` bytes from `start` on."""
    header = ipv4.header(
        address_int(source),
        address_int(E),
        ipv4.UDP,
        size,
        identification=identification,
        flags=start // 8 | (ipv4.MORE_FRAGMENTS if more else 0),
    )
    return Packet(bytearray(header + bytes(size)), None)


def arrive(
    store: Store, packet: Packet, item: str = "", now: int = NOW, port: str = "tap0"
) -> FragmentVerdict[str, str]:
    return store.arrive(key_of(packet, port), packet, item, now)


def begin(store: Store, packet: Packet, decision: str = "go", now: int = NOW) -> list[str]:
    arrival = arrive(store, packet, "first", now)
    assert arrival == ("first", None, None, [])
    return store.settle(key_of(packet), decision, now)


def test_in_order_the_later_ones_follow_the_decision_and_the_datagram_is_forgotten() -> None:
    """F1."""
    store: Store = FragmentStore()
    assert begin(store, piece(0, 1000)) == []
    for start in (1000, 2000):
        assert arrive(store, piece(start, 1000)) == ("follow", "go", None, [])
    assert store.decided == 1
    assert arrive(store, piece(3000, 1, more=False)) == ("follow", "go", None, []), "F8: a last fragment of one byte"
    assert (store.decided, store.waiting, store.waiting_bytes, store.next_deadline()) == (0, 0, 0, None)


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_in_any_order_all_are_delivered_with_the_firsts_names(order: tuple[int, ...]) -> None:
    """F1, F2: 24 permutations, translated; put together they are the datagram that scapy makes of the new names."""
    nat = Nat()
    store: FragmentStore[tuple[int, int], Packet] = FragmentStore()
    whole = IP(src=A, dst=E, id=7) / UDP(sport=5000, dport=7) / Raw(bytes(range(256)) * 15)
    pieces = scapy_fragment(whole, fragsize=1000)
    assert len(pieces) == 4
    sent: list[Packet] = []

    def emit(fragment: Packet, decision: tuple[int, int]) -> None:
        rewrite.source(fragment, *decision)
        sent.append(fragment)

    for index in order:
        packet = ipv4.parse(bytes(pieces[index]))
        assert isinstance(packet, Packet)
        ipv4.read_transport(packet)
        arrival = store.arrive(key_of(packet), packet, packet, nat.now)
        assert arrival.fallen == []
        if arrival.verdict == "first":
            link = nat.aliases.outbound(nat.egress, packet, nat.now)
            assert not isinstance(link, Drop)
            decision = (address_int(nat.x), link.outside_port)
            held = store.settle(key_of(packet), decision, nat.now)
            for fragment in [packet, *held]:
                emit(fragment, decision)
        elif arrival.verdict == "follow":
            assert arrival.decision is not None
            emit(packet, arrival.decision)
        else:
            assert arrival.verdict == "held"
    late = [index for index in order if order.index(index) < order.index(0)]
    assert [packet.offset_bytes // 1000 for packet in sent[1 : 1 + len(late)]] == late, "in order of arrival"
    assert store.decided == store.waiting == 0
    payload = b"".join(bytes(p.data[20:]) for p in sorted(sent, key=lambda packet: packet.offset_bytes))
    again = bytes(IP(src=nat.x, dst=E, id=7, proto=17) / Raw(payload))
    assert again == bytes(IP(src=nat.x, dst=E, id=7) / UDP(sport=5000, dport=7) / Raw(bytes(range(256)) * 15))
    checked(again)
    assert nat.link().packets == 1


def test_a_duplicate_is_dropped_and_changes_nothing() -> None:
    """F3."""
    store: Store = FragmentStore()
    arrive(store, piece(1000, 1000), "x")
    for _ in range(3):
        assert arrive(store, piece(1000, 1000), "y") == ("drop", None, Drop.FRAGMENT_DUPLICATE, [])
    assert begin(store, piece(0, 1000)) == ["x"]
    for start in (0, 1000):
        assert arrive(store, piece(start, 1000)).reason is Drop.FRAGMENT_DUPLICATE
    assert arrive(store, piece(2000, 500, more=False)).verdict == "follow"


OVERLAPS = [
    (8, 16, True),
    (992, 16, True),
    (0, 992, True),
    (0, 2000, True),
    (1992, 1000, True),
    (1000, 1008, True),
    (1008, 8, False),
]


@pytest.mark.parametrize(("start", "size", "more"), OVERLAPS)
def test_an_overlap_gives_up_the_whole_datagram(start: int, size: int, more: bool) -> None:
    """F3: decided or not, what is held falls and what comes later is dropped."""
    store: Store = FragmentStore()
    begin(store, piece(0, 1000))
    arrive(store, piece(1000, 1000))
    assert arrive(store, piece(start, size, more=more)) == ("drop", None, Drop.FRAGMENT_OVERLAP, [])
    assert arrive(store, piece(2000, 1000)).reason is Drop.FRAGMENT_DATAGRAM_DROPPED
    assert arrive(store, piece(3000, 8, more=False)).reason is Drop.FRAGMENT_DATAGRAM_DROPPED
    assert store.decided == 0, "all of it has been seen"


def test_an_overlap_among_fragments_that_wait_lets_them_fall() -> None:
    """F3."""
    store: Store = FragmentStore()
    arrive(store, piece(1000, 1000), "one")
    arrive(store, piece(3000, 1000), "two")
    arrival = arrive(store, piece(1992, 1000), "three")
    assert arrival == (
        "drop",
        None,
        Drop.FRAGMENT_OVERLAP,
        [(Drop.FRAGMENT_OVERLAP, "one"), (Drop.FRAGMENT_OVERLAP, "two")],
    )
    assert arrive(store, piece(0, 1000)).reason is Drop.FRAGMENT_DATAGRAM_DROPPED
    assert (store.waiting, store.waiting_bytes) == (0, 0)


@pytest.mark.parametrize("first_comes_first", [True, False])
def test_a_fragment_at_offset_8_cannot_rewrite_the_ports(first_comes_first: bool) -> None:
    """F3: RFC 1858, RFC 3128: it overlaps the TCP header that the first fragment must have."""
    store: Store = FragmentStore()
    whole = IP(src=A, dst=E, id=7, flags="MF", proto=6) / Raw(bytes(TCP(sport=5000, dport=80)) + bytes(4))
    first = ipv4.parse(bytes(whole))
    tiny = ipv4.parse(bytes(IP(src=A, dst=E, id=7, frag=1, proto=6) / Raw(bytes(16))))
    assert isinstance(first, Packet)
    assert isinstance(tiny, Packet)
    if first_comes_first:
        begin(store, first)
        assert arrive(store, tiny).reason is Drop.FRAGMENT_OVERLAP
    else:
        arrive(store, tiny, "tiny")
        assert arrive(store, first) == ("drop", None, Drop.FRAGMENT_OVERLAP, [(Drop.FRAGMENT_OVERLAP, "tiny")])
        assert arrive(store, tiny).reason is Drop.FRAGMENT_DATAGRAM_DROPPED


def test_two_ends_are_an_overlap() -> None:
    """F3."""
    for second in (piece(2000, 8, more=False), piece(400, 8, more=False), piece(2000, 8), piece(1000, 8)):
        store: Store = FragmentStore()
        arrive(store, piece(1000, 8, more=False), "x")
        assert arrive(store, second).reason is Drop.FRAGMENT_OVERLAP


def test_fragments_without_their_first_are_given_up_after_15_seconds() -> None:
    """F4: memory back to zero."""
    store: Store = FragmentStore()
    arrive(store, piece(1000, 1000), "x")
    arrive(store, piece(2000, 1000), "y", NOW + SECOND_NS)
    deadline = store.next_deadline()
    assert deadline == NOW + 15 * SECOND_NS
    assert store.tick(deadline - 1) == []
    assert store.tick(deadline) == [(Drop.FRAGMENT_TIMEOUT, "x"), (Drop.FRAGMENT_TIMEOUT, "y")]
    assert (store.waiting, store.waiting_bytes, store.next_deadline()) == (0, 0, None)


def test_a_decision_is_kept_for_15_seconds() -> None:
    """F4."""
    store: Store = FragmentStore()
    begin(store, piece(0, 1000))
    assert arrive(store, piece(1000, 8), now=NOW + 15 * SECOND_NS - 1).verdict == "follow"
    assert arrive(store, piece(2000, 8), "z", now=NOW + 15 * SECOND_NS).verdict == "held"
    assert arrive(store, piece(3000, 8), now=NOW + 31 * SECOND_NS).fallen == [(Drop.FRAGMENT_TIMEOUT, "z")]


def test_a_refused_first_fragment_takes_the_rest_with_it() -> None:
    store: Store = FragmentStore()
    arrive(store, piece(1000, 1000), "x")
    arrive(store, piece(0, 1000))
    assert store.refuse(key_of(piece(0, 8)), NOW) == ["x"]
    assert arrive(store, piece(2000, 8)).reason is Drop.FRAGMENT_DATAGRAM_DROPPED
    assert store.settle(key_of(piece(0, 8, identification=9)), "go", NOW) == []
    assert store.refuse(key_of(piece(0, 8, identification=9)), NOW) == []


def test_100_000_orphans_hurt_nobody_but_themselves() -> None:
    """F5: bounded; before, during and after the flood datagrams pass, in order and in disorder."""
    store: Store = FragmentStore()
    rng = random.Random(5)
    assert begin(store, piece(0, 1000)) == []
    fallen = 0
    for number in range(100_000):
        source = f"203.0.113.{rng.randrange(1, 255)}"
        arrival = arrive(store, piece(8, 8, source=source, identification=number & 0xFFFF), "orphan")
        fallen += len(arrival.fallen) + (arrival.verdict == "drop")
        assert store.waiting <= WAITING.datagrams
        assert store.waiting_bytes <= WAITING.bytes
        if number % 1000 == 0:
            late = piece(1000, 8, more=False, source=B, identification=number & 0xFFFF)
            arrival = arrive(store, late, "late")
            assert arrival.verdict == "held"
            fallen += len(arrival.fallen)
            assert begin(store, piece(0, 1000, source=B, identification=number & 0xFFFF)) == ["late"]
    assert arrive(store, piece(1000, 8, more=False)) == ("follow", "go", None, [])
    assert len(store.tick(NOW + 15 * SECOND_NS)) + fallen == 100_000
    assert store.waiting_bytes == 0


def test_one_source_cannot_push_out_the_others() -> None:
    """F5."""
    store: Store = FragmentStore()
    arrive(store, piece(1000, 8, more=False, source=B), "B's")
    for number in range(WAITING.source_datagrams + 500):
        arrive(store, piece(8, 8, identification=number), "A's")
    assert store.waiting == WAITING.source_datagrams + 1
    for number in range(2000):
        arrive(store, piece(8 + 1400 * number % 60_000, 1400, identification=number), "A's")
    assert store.waiting_bytes <= WAITING.source_bytes + 1000
    assert begin(store, piece(0, 1000, source=B)) == ["B's"]


def test_a_flood_of_first_fragments_is_bounded_too() -> None:
    """F5."""
    store: Store = FragmentStore()
    for number in range(20_000):
        begin(store, piece(0, 8, source=f"203.0.113.{number % 250}", identification=number))
    assert store.decided <= DECIDED.datagrams
    assert begin(store, piece(0, 1000)) == []
    assert arrive(store, piece(1000, 8, more=False)).verdict == "follow"


def test_what_does_not_fit_at_all_is_dropped() -> None:
    """F5."""
    store: Store = FragmentStore(waiting=ShelfLimits(10, 5_000, 10, 2_000))
    assert arrive(store, piece(8, 1000), "x").verdict == "held"
    arrival = arrive(store, piece(1008, 1000), "y")
    assert arrival == ("drop", None, Drop.FRAGMENT_STORE_FULL, [(Drop.FRAGMENT_STORE_FULL, "x")])
    assert (store.waiting, store.waiting_bytes) == (0, 0)


def test_the_key_keeps_hosts_protocols_and_ports_apart() -> None:
    """F6: A and B with one identification, interleaved."""
    store: Store = FragmentStore()
    begin(store, piece(0, 1000), "A's")
    begin(store, piece(0, 1000, source=B), "B's")
    assert arrive(store, piece(1000, 8, source=B)).decision == "B's"
    assert arrive(store, piece(1000, 8)).decision == "A's"
    assert arrive(store, piece(2000, 8), port="tap1").verdict == "held"


@pytest.mark.parametrize(
    ("start", "size", "more", "is_bad"),
    [
        (0, 1001, True, True),
        (8, 7, True, True),
        (8, 7, False, False),
        (65_512, 3, False, False),
        (65_512, 4, False, True),
        (65_528, 8, False, True),
        (65_504, 8, True, False),
        (65_504, 16, True, True),
        (8, 0, False, True),
        (8, 0, True, True),
        (0, 0, True, True),
    ],
)
def test_impossible_fragments_are_refused_before_anything_else(start: int, size: int, more: bool, is_bad: bool) -> None:
    """F7: no multiple of eight with MF; an end beyond 65,535, header included (the ping of death); nothing in it."""
    store: Store = FragmentStore()
    begin(store, piece(0, 8, identification=9))
    arrival = arrive(store, piece(start, size, more=more))
    assert (arrival.reason is Drop.FRAGMENT_BAD) == is_bad
    if is_bad:
        assert (store.waiting, store.decided) == (0, 1)


def test_a_datagram_of_65515_bytes_in_small_pieces() -> None:
    """F8."""
    store: Store = FragmentStore()
    begin(store, piece(0, 48))
    for start in range(48, 65_515, 48):
        size = min(48, 65_515 - start)
        assert arrive(store, piece(start, size, more=start + size < 65_515)).verdict == "follow"
    assert store.decided == 0


fragments = st.builds(
    piece,
    st.integers(0, 40).map(lambda words: words * 8),
    st.one_of(st.integers(0, 9).map(lambda words: words * 8), st.integers(0, 70)),
    more=st.booleans(),
    source=st.sampled_from([A, B]),
    identification=st.integers(0, 2),
)


@given(st.lists(st.tuples(fragments, st.sampled_from(["settle", "refuse", "neither"]), st.integers(0, 3)), max_size=60))
def test_every_item_comes_back_exactly_once(events: list[tuple[Packet, str, int]]) -> None:
    """F5: nothing is lost, nothing doubled, nothing raises, and the bounds hold."""
    limits = ShelfLimits(4, 5_000, 3, 4_000)
    store: FragmentStore[str, int] = FragmentStore(limits, ShelfLimits(4, 50_000, 3, 40_000))
    now, held, back = NOW, set(), []
    for number, (packet, reaction, seconds) in enumerate(events):
        now += seconds * SECOND_NS
        key = key_of(packet)
        arrival = store.arrive(key, packet, number, now)
        back += [item for _, item in arrival.fallen]
        if arrival.verdict == "held":
            held.add(number)
        elif arrival.verdict == "first" and reaction != "neither":
            back += store.settle(key, "go", now) if reaction == "settle" else store.refuse(key, now)
        elif arrival.verdict == "first":
            back += store.refuse(key, now)
        assert (arrival.reason is None) == (arrival.verdict != "drop")
        assert store.waiting <= 4
        assert store.waiting_bytes <= 5_000
    back += [item for _, item in store.tick(now + 60 * SECOND_NS)]
    assert sorted(back) == sorted(held)
    assert (store.waiting, store.decided, store.waiting_bytes, store.next_deadline()) == (0, 0, 0, None)
