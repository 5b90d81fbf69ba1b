"""Ethernet II framing (RFC 894): 14 bytes in front of an ARP or IPv4 packet."""

from __future__ import annotations

from wire.drop import Drop

HEADER_BYTES = 14
MINIMUM_FRAME_BYTES = 60
ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD
_VLAN_TAGS = frozenset({0x8100, 0x88A8, 0x9100})
TAG_BYTES = 4
_NEXT_HEADER_AT, _ICMP6_AT, _ICMP6, _ROUTER_ADVERTISEMENT = HEADER_BYTES + 6, HEADER_BYTES + 40, 58, 134
TAG_TYPES = frozenset({b"\x81\x00", b"\x88\xa8"})

IPV4_TYPE = ETHERTYPE_IPV4.to_bytes(2, "big")
ARP_TYPE = ETHERTYPE_ARP.to_bytes(2, "big")
IPV6_TYPE = ETHERTYPE_IPV6.to_bytes(2, "big")
BROADCAST = b"\xff" * 6
NO_MAC = bytes(6)


def is_group(mac: bytes) -> bool:
    """True for a broadcast or multicast MAC address (IEEE 802: the lowest bit of the first byte)."""
    return bool(mac[0] & 1)


def is_router_advertisement(frame: bytes) -> bool:
    """True for an IPv6 frame with a router advertisement (RFC 4861 4.2) right behind its IPv6 header."""
    return len(frame) > _ICMP6_AT and frame[_NEXT_HEADER_AT] == _ICMP6 and frame[_ICMP6_AT] == _ROUTER_ADVERTISEMENT


def priority_tags(frame: bytes | bytearray | memoryview) -> int:
    """How many priority tags stand behind the MAC addresses of a frame: tags of VLAN 0 name no VLAN, so the frame
    counts as untagged (IEEE 802.1Q 6.9)."""
    count = 0
    while len(frame) >= HEADER_BYTES + (count + 1) * TAG_BYTES:
        at = 12 + count * TAG_BYTES
        if bytes(frame[at : at + 2]) not in TAG_TYPES or frame[at + 2] & 0x0F or frame[at + 3]:
            break
        count += 1
    return count


def without_tags(frame: bytes, count: int) -> bytes:
    """A frame without the first `count` tags behind its MAC addresses."""
    return frame[:12] + frame[12 + count * TAG_BYTES :]


def ethertype_drop(ethertype: int) -> Drop:
    """The reason for a frame that carries neither IPv4 nor ARP."""
    if ethertype == ETHERTYPE_IPV6:
        return Drop.ETHERTYPE_IPV6
    if ethertype in _VLAN_TAGS:
        return Drop.ETHERTYPE_VLAN
    return Drop.ETHERTYPE_LLC if ethertype < 0x0600 else Drop.ETHERTYPE_OTHER
