"""RFC 791 3.2: datagrams to us are put together."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet import fragment as scapy_fragment
from scapy.packet import Raw

from alias.reassembly import LIMITS, Expired, Joined, Reassembly
from alias.shelf import ShelfLimits
from tests.alias.nat import A, checked
from tests.alias.test_alias_fragments import fragments, key_of, piece
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.units import SECOND_NS

NOW = 1_000 * SECOND_NS
US = "192.168.200.2"


def ping(size: int) -> IP:
    return IP(src=A, dst=US, id=7) / ICMP(id=5, seq=1) / Raw(random.Random(size).randbytes(size))


def pieces_of(whole: IP, size: int = 1480) -> list[Packet]:
    parsed = [ipv4.parse(bytes(part)) for part in scapy_fragment(whole, fragsize=size)]
    assert all(isinstance(part, Packet) for part in parsed)
    return [part for part in parsed if isinstance(part, Packet)]


@given(st.integers(1473, 12_000), st.sampled_from([8, 576, 1480]), st.randoms(use_true_random=False))
def test_in_any_order_the_datagram_is_what_was_sent(size: int, fragment_bytes: int, rng: random.Random) -> None:
    """F8, F2, G17: a big ping, byte for byte, its header checksum right."""
    whole = ping(size if fragment_bytes > 8 else size % 800 + 9)
    parts = pieces_of(whole, fragment_bytes)
    rng.shuffle(parts)
    store = Reassembly()
    results = [store.add(key_of(part), part, NOW) for part in parts]
    assert results[:-1] == [None] * (len(parts) - 1)
    assert isinstance(results[-1], Joined)
    joined, fragments = results[-1]
    assert isinstance(joined, Packet)
    assert fragments == len(parts)
    assert joined.data == bytes(whole)
    assert (joined.is_fragment, joined.source, joined.identification) == (False, parts[0].source, 7)
    checked(joined.data)
    assert (len(store), store.next_deadline()) == (0, None)


def test_a_datagram_of_65515_bytes() -> None:
    """F8."""
    store = Reassembly()
    joined = None
    for part in pieces_of(ping(65_507)):
        assert joined is None
        joined = store.add(key_of(part), part, NOW)
    assert isinstance(joined, Joined)
    assert isinstance(joined.packet, Packet)
    assert len(joined.packet.data) == 65_535


def test_a_datagram_that_grows_too_long_with_the_options_of_its_first_fragment_is_refused() -> None:
    """F7."""
    store = Reassembly()
    first = piece(0, 8)
    first.data[20:20] = b"\x01" * 40
    first.data[0] = 0x4F
    first.header_bytes = 60
    assert store.add(key_of(first), piece(8, 65_504), NOW) is None
    assert store.add(key_of(first), piece(65_512, 3, more=False), NOW) is None
    assert store.add(key_of(first), first, NOW) == Joined(Drop.FRAGMENT_BAD, 3)
    assert len(store) == 0


def test_a_datagram_that_never_becomes_whole_is_told_after_15_seconds() -> None:
    """F4: with its first fragment, if that is here, for 11/1."""
    store = Reassembly()
    first = piece(0, 1000)
    store.add(key_of(first), first, NOW)
    store.add(key_of(first), piece(1000, 8), NOW + SECOND_NS)
    orphan = piece(1000, 8, identification=8)
    store.add(key_of(orphan), orphan, NOW)
    deadline = store.next_deadline()
    assert deadline == NOW + 15 * SECOND_NS
    assert store.tick(deadline - 1) == []
    assert store.tick(deadline) == [
        Expired("tap0", Drop.FRAGMENT_TIMEOUT, first, 2),
        Expired("tap0", Drop.FRAGMENT_TIMEOUT, None, 1),
    ]
    assert (len(store), store.next_deadline(), store.tick(deadline)) == (0, None, [])


def test_an_overlap_gives_up_the_whole_datagram() -> None:
    """F3."""
    store = Reassembly()
    key = key_of(piece(0, 8))
    store.add(key, piece(0, 1000), NOW)
    assert store.add(key, piece(0, 1000), NOW) is Drop.FRAGMENT_DUPLICATE
    assert store.add(key, piece(992, 16), NOW) is Drop.FRAGMENT_OVERLAP
    assert store.add(key, piece(1000, 8, more=False), NOW) is Drop.FRAGMENT_DATAGRAM_DROPPED
    assert store.tick(NOW) == [Expired("tap0", Drop.FRAGMENT_OVERLAP, None, 1)]
    assert store.tick(NOW + 15 * SECOND_NS) == []
    assert len(store) == 0


def test_impossible_fragments_are_refused() -> None:
    """F7."""
    store = Reassembly()
    for bad in (piece(0, 7), piece(65_528, 8, more=False), piece(8, 0, more=False)):
        assert store.add(key_of(bad), bad, NOW) is Drop.FRAGMENT_BAD
    assert len(store) == 0


def test_the_room_is_bounded_and_a_flood_leaves_others_their_share() -> None:
    """F5."""
    store = Reassembly()
    honest = pieces_of(ping(4000))
    store.add(key_of(honest[0]), honest[0], NOW)
    for number in range(5_000):
        flood = piece(8, 1400, source="192.168.200.66", identification=number & 0xFFFF)
        assert store.add(key_of(flood), flood, NOW) is None
    assert len(store) == LIMITS.source_datagrams + 1
    store.add(key_of(honest[1]), honest[1], NOW)
    assert isinstance(store.add(key_of(honest[2]), honest[2], NOW), Joined)
    assert store.tick(NOW) == [Expired("tap0", Drop.FRAGMENT_STORE_FULL, None, 5_000 - LIMITS.source_datagrams)]


def test_what_does_not_fit_at_all_is_refused() -> None:
    """F5."""
    store = Reassembly(ShelfLimits(10, 5_000, 10, 2_000))
    key = key_of(piece(0, 8))
    assert store.add(key, piece(8, 1000), NOW) is None
    assert store.add(key, piece(1008, 1000), NOW) is Drop.FRAGMENT_STORE_FULL
    assert store.tick(NOW) == [Expired("tap0", Drop.FRAGMENT_STORE_FULL, None, 1)]


@given(st.lists(st.tuples(fragments, st.integers(0, 3)), max_size=60))
def test_nothing_raises_and_the_bounds_hold(events: list[tuple[Packet, int]]) -> None:
    """F5: what is put together parses, and no more is told than was kept."""
    store = Reassembly(ShelfLimits(4, 5_000, 3, 4_000))
    now, kept, told = NOW, 0, 0
    for packet, seconds in events:
        now += seconds * SECOND_NS
        told += sum(expired.fragments for expired in store.tick(now))
        outcome = store.add(key_of(packet), packet, now)
        kept += outcome is None
        if isinstance(outcome, Joined):
            kept -= outcome.fragments - 1
            assert isinstance(outcome.packet, Drop) or isinstance(ipv4.parse(bytes(outcome.packet.data)), Packet)
        told += sum(expired.fragments for expired in store.take_fallen())
        assert kept - told == sum(fragments for _, fragments in store.held()), "each is kept, joined or told"
        assert len(store) <= 4
    told += sum(expired.fragments for expired in store.tick(now + 60 * SECOND_NS))
    assert told == kept
    assert (len(store), store.next_deadline()) == (0, None)
