"""The Internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3).

All values are 16-bit integers in network order. A *sum* is a one's complement sum, uncomplemented; a *checksum* is what
stands in a header, the complement of a sum. A *delta* is what a change of covered bytes adds to a sum: deltas of
several changes add up, and one `apply` puts them all into a checksum. Nothing is ever recomputed from scratch on a
forwarded packet: that would launder corruption.
"""

from __future__ import annotations

from typing import Final

_WORTH_QUARTERS_BYTES: Final = 1024


def ones_sum(data: bytes | bytearray | memoryview, initial: int = 0) -> int:
    """The one's complement sum of `data` (an odd last byte is padded with zero) plus `initial`, folded to 16 bits.

    A one's complement sum is the number that the bytes spell, modulo 65,535, with 65,535 for a non-zero multiple: one
    big-integer division runs at C speed. Four numbers of a quarter of the length have the same sum: dividing is dear.
    """
    size = len(data)
    if size >= _WORTH_QUARTERS_BYTES:
        quarter = size >> 3 << 1
        half, most = 2 * quarter, 3 * quarter
        number = (
            int.from_bytes(data[:quarter], "big")
            + int.from_bytes(data[quarter:half], "big")
            + int.from_bytes(data[half:most], "big")
            + (int.from_bytes(data[most:], "big") << (8 if size & 1 else 0))
        )
    else:
        number = int.from_bytes(data, "big")
        if size & 1:
            number <<= 8
    number += initial
    if number == 0:
        return 0
    return number % 0xFFFF or 0xFFFF


def checksum(data: bytes | bytearray | memoryview, initial: int = 0) -> int:
    """The checksum over `data` whose checksum field is zero (RFC 1071)."""
    return ones_sum(data, initial) ^ 0xFFFF


def is_valid(data: bytes | bytearray | memoryview, initial: int = 0) -> bool:
    """True where `data`, checksum field included, sums to all ones."""
    return ones_sum(data, initial) == 0xFFFF


def fold(value: int) -> int:
    """End-around carry until 16 bits remain: the remainder as in `ones_sum`."""
    return value % 0xFFFF or 0xFFFF if value > 0xFFFF else value


def delta16(old: int, new: int) -> int:
    """What changing one 16-bit word from `old` to `new` adds to the sum: ~m + m' (RFC 1624)."""
    return fold((old ^ 0xFFFF) + new)


def delta32(old: int, new: int) -> int:
    """The same for a 32-bit field that stands on an even offset (an address, a sequence number)."""
    return fold((old >> 16 ^ 0xFFFF) + (old & 0xFFFF ^ 0xFFFF) + (new >> 16) + (new & 0xFFFF))


def apply(check: int, delta: int) -> int:
    """The checksum after a change: HC' = ~(~HC + ~m + m') (RFC 1624, equation 3)."""
    total = (check ^ 0xFFFF) + delta
    if total > 0xFFFF:  # `fold` without the call: every packet comes by here
        total = total % 0xFFFF or 0xFFFF
    return total ^ 0xFFFF


def apply_icmp(message: memoryview, delta: int) -> int:
    """The same for an ICMP message that already holds its new bytes; its checksum field still is the old one.

    Equation 3 never gives 0xFFFF, which a sum of nothing but zeros needs. Only an ICMP message, which has no
    pseudo-header, can be all zero: an echo reply with identifier, sequence number and data of zeros.
    """
    check = apply(message[2] << 8 | message[3], delta)
    if check == 0 and not any(message[:2]) and not any(message[4:]):
        return 0xFFFF
    return check


def apply_partial(partial: int, delta: int) -> int:
    """The same for a partial checksum, which holds the uncomplemented sum of the pseudo-header (virtio NEEDS_CSUM)."""
    return fold(partial + delta)


def pseudo_header_sum(source: int, destination: int, protocol: int, length: int) -> int:
    """The one's complement sum of the TCP/UDP pseudo-header (RFC 768, RFC 9293 3.1); `length` in bytes."""
    return fold((source >> 16) + (source & 0xFFFF) + (destination >> 16) + (destination & 0xFFFF) + protocol + length)
