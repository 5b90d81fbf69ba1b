"""Offloads in captures: frames that a host or a network card had not finished when they were captured.

A capture holds no virtio header. A sender's own capture shows TCP super-frames of up to 64 KB before they are cut
(TSO), a receiver's shows segments that were joined (GRO), and transport checksums that the card would have completed
are partial there. `as_received` reads such a frame as the port would have received it; `completed` makes the checksum
of a frame whole before it is written into a capture.
"""

from __future__ import annotations

import struct
from typing import Final

from wire import gso
from wire.checksum import is_valid, pseudo_header_sum
from wire.ethernet import HEADER_BYTES, IPV4_TYPE, TAG_BYTES
from wire.gso import GsoHeader

ORDINARY_MTU_BYTES: Final = 1500
"""A packet of at most this length may have come whole, whatever the port's MTU is."""

_TCP, _UDP = 6, 17
_CHECKSUM_AT: Final = {_TCP: 16, _UDP: 6}
_KINDS: Final = {_TCP: gso.GSO_TCPV4, _UDP: gso.GSO_UDP_L4}
_TAG_TYPES: Final = (b"\x81\x00", b"\x88\xa8")
_FRAGMENT: Final = 0x3FFF  # offset and "more fragments"


def link_bytes_of(frame: bytes | bytearray) -> int:
    """The length of an Ethernet header with its tags."""
    at = HEADER_BYTES
    while frame[at - 2 : at] in _TAG_TYPES:
        at += TAG_BYTES
    return at


def as_received(
    frame: bytes, mtu_bytes: int, *, is_ethernet: bool, segment_bytes: int = 0
) -> tuple[bytes | bytearray, GsoHeader | None]:
    """A captured frame as the port received it: its bytes and its virtio header, None for a plain frame.

    `segment_bytes`: payload of each segment where the capture says so. Without it a TCP packet longer than the port's
    MTU and `ORDINARY_MTU_BYTES` was joined or not yet cut, and each segment filled the MTU. The header's offsets count
    from the IP packet.
    """
    link_bytes = link_bytes_of(frame) if is_ethernet else 0
    packet = bytearray(frame[link_bytes:])
    transport = _transport(packet, frame[link_bytes - 2 : link_bytes] if is_ethernet else IPV4_TYPE)
    if transport is None:
        return frame, None
    ip_bytes, protocol, header_bytes, total_bytes = transport
    is_super = protocol == _TCP and total_bytes > max(mtu_bytes, ORDINARY_MTU_BYTES)
    if not segment_bytes and is_super:
        segment_bytes = mtu_bytes - header_bytes
    if segment_bytes > 0 and total_bytes - header_bytes > segment_bytes:
        whole = GsoHeader(True, _KINDS[protocol], header_bytes, segment_bytes, ip_bytes, _CHECKSUM_AT[protocol])
    elif _is_partial(packet, ip_bytes, protocol, total_bytes):
        return frame, GsoHeader(True, gso.GSO_NONE, 0, 0, ip_bytes, _CHECKSUM_AT[protocol])
    else:
        return frame, None
    _set_partial(packet, ip_bytes, protocol, total_bytes)
    return frame[:link_bytes] + packet, whole


def completed(frame: bytes, *, is_ethernet: bool) -> bytes:
    """A frame whose transport checksum is partial, with a whole one."""
    link_bytes = link_bytes_of(frame) if is_ethernet else 0
    packet = bytearray(frame[link_bytes:])
    transport = _transport(packet, frame[link_bytes - 2 : link_bytes] if is_ethernet else IPV4_TYPE)
    if transport is None:
        return frame
    ip_bytes, protocol, _, total_bytes = transport
    packet, padding = packet[:total_bytes], packet[total_bytes:]
    gso.complete(packet, GsoHeader(True, gso.GSO_NONE, 0, 0, ip_bytes, _CHECKSUM_AT[protocol]))
    return frame[:link_bytes] + packet + padding


def _transport(packet: bytearray, ethertype: bytes) -> tuple[int, int, int, int] | None:
    """Of an unfragmented IPv4 packet of TCP or UDP: the length of its IP header, its protocol, the length of all
    headers, its total length; None for any other packet."""
    if ethertype != IPV4_TYPE or len(packet) < 28 or packet[0] >> 4 != 4:
        return None
    ip_bytes, protocol = (packet[0] & 15) * 4, packet[9]
    total_bytes, _, fragment = struct.unpack_from("!HHH", packet, 2)
    if protocol not in _KINDS or fragment & _FRAGMENT or not 20 <= ip_bytes <= len(packet) - 8:
        return None
    transport_bytes = 8
    if protocol == _TCP:
        if len(packet) < ip_bytes + 20:
            return None
        transport_bytes = (packet[ip_bytes + 12] >> 4) * 4
    header_bytes = ip_bytes + transport_bytes
    if not header_bytes <= total_bytes <= len(packet) or transport_bytes < (20 if protocol == _TCP else 8):
        return None
    return ip_bytes, protocol, header_bytes, total_bytes


def _pseudo(packet: bytearray, ip_bytes: int, protocol: int, total_bytes: int) -> int:
    source, destination = struct.unpack_from("!II", packet, 12)
    return pseudo_header_sum(source, destination, protocol, total_bytes - ip_bytes)


def _is_partial(packet: bytearray, ip_bytes: int, protocol: int, total_bytes: int) -> bool:
    """True where the checksum field holds the sum of the pseudo-header alone, and is no whole checksum by chance."""
    at = ip_bytes + _CHECKSUM_AT[protocol]
    pseudo = _pseudo(packet, ip_bytes, protocol, total_bytes)
    if int.from_bytes(packet[at : at + 2], "big") != pseudo:
        return False
    return not is_valid(memoryview(packet)[ip_bytes:total_bytes], pseudo)


def _set_partial(packet: bytearray, ip_bytes: int, protocol: int, total_bytes: int) -> None:
    at = ip_bytes + _CHECKSUM_AT[protocol]
    packet[at : at + 2] = _pseudo(packet, ip_bytes, protocol, total_bytes).to_bytes(2, "big")
