"""The ARP packet in its Ethernet frame (RFC 826): read strictly, written padded to the 60 bytes of the wire.

RFC 826 *Packet format*: `parse`, `ArpPacket`. RFC 826 *Packet Reception*, last step: `reply`. RFC 1122 2.3.2.1 (2):
`request` to a MAC address is the unicast poll. RFC 5227 1.1: `probe`; 2.3: `announcement`.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from wire.drop import Drop
from wire.ethernet import (
    BROADCAST,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    HEADER_BYTES,
    MINIMUM_FRAME_BYTES,
    NO_MAC,
    ethertype_drop,
)

REQUEST, REPLY = 1, 2
HARDWARE_ETHERNET, HARDWARE_IEEE802 = 1, 6
_HARDWARE_TYPES = frozenset({HARDWARE_ETHERNET, HARDWARE_IEEE802})

_FRAME = struct.Struct("!6s6sHHHBBH6sI6sI")


class ArpPacket(NamedTuple):
    """An ARP packet for IPv4 over Ethernet, and the MAC addresses of the frame that carried it."""

    link_destination: bytes
    link_source: bytes
    hardware_type: int
    opcode: int
    sender_mac: bytes
    sender: int
    target_mac: bytes
    target: int


def parse(frame: bytes | bytearray | memoryview) -> ArpPacket | Drop:
    """The ARP packet of a whole Ethernet frame, or the reason to drop it. Bytes behind the 28 of ARP are padding.

    Hardware type 6 (IEEE 802) is accepted as well as 1. The opcode is not checked: RFC 826 learns before it reads it.
    """
    if len(frame) < _FRAME.size:
        return Drop.ETH_SHORT if len(frame) < HEADER_BYTES else Drop.ARP_MALFORMED
    (
        link_destination,
        link_source,
        ethertype,
        hardware_type,
        protocol_type,
        hardware_bytes,
        protocol_bytes,
        opcode,
        sender_mac,
        sender,
        target_mac,
        target,
    ) = _FRAME.unpack_from(frame)
    if ethertype != ETHERTYPE_ARP:
        return ethertype_drop(ethertype)
    if hardware_type not in _HARDWARE_TYPES or hardware_bytes != 6:
        return Drop.ARP_MALFORMED
    if protocol_type != ETHERTYPE_IPV4 or protocol_bytes != 4:
        return Drop.ARP_MALFORMED
    return ArpPacket(link_destination, link_source, hardware_type, opcode, sender_mac, sender, target_mac, target)


def request(mac: bytes, address: int, target: int, link_destination: bytes = BROADCAST) -> bytes:
    """The frame by which `address` at `mac` asks for `target`. `link_destination`: broadcast, or the one station that
    is polled."""
    return _frame(link_destination, HARDWARE_ETHERNET, REQUEST, mac, address, NO_MAC, target)


def reply(mac: bytes, address: int, asked: ArpPacket) -> bytes:
    """The answer to the request `asked` for `address`: RFC 826 swaps the fields and keeps the hardware type."""
    return _frame(asked.sender_mac, asked.hardware_type, REPLY, mac, address, asked.sender_mac, asked.sender)


def probe(mac: bytes, address: int) -> bytes:
    """The question whether a host already uses `address`. It has no sender address, so no table learns from it."""
    return _frame(BROADCAST, HARDWARE_ETHERNET, REQUEST, mac, 0, NO_MAC, address)


def announcement(mac: bytes, address: int) -> bytes:
    """The claim that `address` is ours: a request for itself."""
    return request(mac, address, address)


def _frame(
    link_destination: bytes, hardware_type: int, opcode: int, mac: bytes, sender: int, target_mac: bytes, target: int
) -> bytes:
    return _FRAME.pack(
        link_destination,
        mac,
        ETHERTYPE_ARP,
        hardware_type,
        ETHERTYPE_IPV4,
        6,
        4,
        opcode,
        mac,
        sender,
        target_mac,
        target,
    ).ljust(MINIMUM_FRAME_BYTES, b"\0")
