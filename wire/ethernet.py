"""Ethernet II framing (RFC 894): 14 bytes in front of an ARP or IPv4 packet."""

from __future__ import annotations

from wire.drop import Drop

HEADER_BYTES = 14
MINIMUM_FRAME_BYTES = 60
ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD
_VLAN_TAGS = frozenset({0x8100, 0x88A8, 0x9100})

IPV4_TYPE = ETHERTYPE_IPV4.to_bytes(2, "big")
ARP_TYPE = ETHERTYPE_ARP.to_bytes(2, "big")
BROADCAST = b"\xff" * 6
NO_MAC = bytes(6)


def is_group(mac: bytes) -> bool:
    """True for a broadcast or multicast MAC address (IEEE 802: the lowest bit of the first byte)."""
    return bool(mac[0] & 1)


def ethertype_drop(ethertype: int) -> Drop:
    """The reason for a frame that carries neither IPv4 nor ARP."""
    if ethertype == ETHERTYPE_IPV6:
        return Drop.ETHERTYPE_IPV6
    if ethertype in _VLAN_TAGS:
        return Drop.ETHERTYPE_VLAN
    return Drop.ETHERTYPE_LLC if ethertype < 0x0600 else Drop.ETHERTYPE_OTHER
