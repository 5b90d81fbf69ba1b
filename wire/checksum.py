"""The Internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3).

All values are 16-bit integers in network order. A *sum* is a one's complement sum, uncomplemented; a *checksum* is its
complement, as it stands in a header. A change of covered bytes adds a *delta* to the sum: the deltas of several changes
add up, and one `apply` puts them all into a checksum. No checksum of a forwarded packet is computed from scratch: that
would give a damaged packet a good checksum.
"""

from __future__ import annotations

from typing import Final

_WORTH_QUARTERS_BYTES: Final = 1024


def ones_sum(data: bytes | bytearray | memoryview, initial: int = 0) -> int:
    """The one's complement sum of `data` (an odd last byte is padded with zero) plus `initial`, folded to 16 bits.

    A one's complement sum is the big-endian number of all bytes, modulo 65,535, with 65,535 for a non-zero multiple, so
    one division of integers computes it at C speed. Long data is added up in four quarters first, because the time of a
    division grows with the length.
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
    """A sum of any size folded to 16 bits by end-around carry."""
    return value % 0xFFFF or 0xFFFF if value > 0xFFFF else value


def delta16(old: int, new: int) -> int:
    """The delta of one 16-bit word that changes from `old` to `new`: ~m + m' (RFC 1624)."""
    return fold((old ^ 0xFFFF) + new)


def delta32(old: int, new: int) -> int:
    """The delta of a 32-bit field on an even offset (an address, a sequence number)."""
    return fold((old >> 16 ^ 0xFFFF) + (old & 0xFFFF ^ 0xFFFF) + (new >> 16) + (new & 0xFFFF))


def apply(check: int, delta: int) -> int:
    """The checksum after a change: HC' = ~(~HC + ~m + m') (RFC 1624, equation 3)."""
    total = (check ^ 0xFFFF) + delta
    if total > 0xFFFF:  # `fold` without the call: every packet comes by here
        total = total % 0xFFFF or 0xFFFF
    return total ^ 0xFFFF


def apply_icmp(message: memoryview, delta: int) -> int:
    """The checksum of an ICMP message whose bytes are changed already and whose checksum field is still the old one.

    Equation 3 never gives 0xFFFF, which is the checksum of a message of zeros. Only an ICMP message, which has no
    pseudo-header, can be all zero: an echo reply with identifier, sequence number and data of zeros.
    """
    check = apply(message[2] << 8 | message[3], delta)
    if check == 0 and not any(message[:2]) and not any(message[4:]):
        return 0xFFFF
    return check


def apply_partial(partial: int, delta: int) -> int:
    """A partial checksum after a change. It holds the uncomplemented sum of the pseudo-header (virtio NEEDS_CSUM)."""
    return fold(partial + delta)


def pseudo_header_sum(source: int, destination: int, protocol: int, length: int) -> int:
    """The one's complement sum of the TCP/UDP pseudo-header (RFC 768, RFC 9293 3.1); `length` in bytes."""
    return fold((source >> 16) + (source & 0xFFFF) + (destination >> 16) + (destination & 0xFFFF) + protocol + length)
