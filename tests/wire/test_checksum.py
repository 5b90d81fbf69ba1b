"""The Internet checksum against scapy's, and the vectors of RFC 1624."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import checksum as scapy_checksum

from wire import checksum

WORDS = st.one_of(st.sampled_from([0, 0xFFFF, 1, 0x8000]), st.integers(0, 0xFFFF))


def test_p2_the_vector_of_rfc_1624_gives_zero_and_not_ffff() -> None:
    assert checksum.apply(0xDD2F, checksum.delta16(0x5555, 0x3285)) == 0x0000


@given(st.binary(max_size=200))
def test_a_checksum_over_any_bytes_is_scapys(data: bytes) -> None:
    assert checksum.checksum(data) == scapy_checksum(data)


@given(st.lists(WORDS, min_size=2, max_size=30), st.data())
def test_p2_an_incremental_update_is_what_a_full_recompute_gives(words: list[int], data: st.DataObject) -> None:
    """P2: over random, all-zero and all-one fields; a sum of zero cannot come out of a header that is not all zero."""
    at = data.draw(st.integers(0, len(words) - 1))
    new = data.draw(WORDS)
    old_bytes = b"".join(word.to_bytes(2, "big") for word in words)
    words_after = [*words[:at], new, *words[at + 1 :]]
    new_bytes = b"".join(word.to_bytes(2, "big") for word in words_after)
    updated = checksum.apply(checksum.checksum(old_bytes), checksum.delta16(words[at], new))
    if any(words_after) and any(words):
        assert updated == scapy_checksum(new_bytes)


@given(st.lists(WORDS, min_size=2, max_size=8) | st.lists(st.just(0), min_size=2, max_size=8), st.data())
def test_an_icmp_message_stays_right_even_where_nothing_but_zeros_is_left(
    words: list[int], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(words) - 1))
    new = data.draw(WORDS)

    def message(words: list[int], check: int) -> bytes:
        return b"".join(word.to_bytes(2, "big") for word in (words[0], check, *words[1:]))

    check = scapy_checksum(message(words, 0))
    changed = [*words[:at], new, *words[at + 1 :]]
    updated = checksum.apply_icmp(memoryview(message(changed, check)), checksum.delta16(words[at], new))
    assert scapy_checksum(message(changed, updated)) == 0


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
def test_a_32_bit_delta_is_the_sum_of_its_two_halves(old: int, new: int) -> None:
    halves = checksum.fold(checksum.delta16(old >> 16, new >> 16) + checksum.delta16(old & 0xFFFF, new & 0xFFFF))
    assert checksum.delta32(old, new) == halves


@given(st.binary(min_size=2, max_size=64))
def test_what_carries_its_own_checksum_is_valid(data: bytes) -> None:
    even = data[: len(data) // 2 * 2]
    assert checksum.is_valid(even + checksum.checksum(even).to_bytes(2, "big"))
