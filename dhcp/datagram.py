"""DHCP messages on the wire: Ethernet, IPv4 and UDP around them.

RFC 2131 4.1 (ports, addresses of a client that has none yet): `broadcast`; 4.3.6 (renewals go to one server):
`unicast`. RFC 768 and RFC 1122 4.1.3.4 (checksums; zero is none): `read`.
"""

from __future__ import annotations

import struct
from typing import Final

from dhcp import message
from dhcp.message import Message
from wire import ipv4
from wire.checksum import checksum, ones_sum, pseudo_header_sum
from wire.drop import Drop
from wire.ethernet import BROADCAST, IPV4_TYPE
from wire.ipv4 import Packet

SERVER_PORT: Final = 67
CLIENT_PORT: Final = 68

_UDP = struct.Struct("!HHHH")


def is_for_client(packet: Packet) -> bool:
    """True for UDP to the client's port. The ports must have been read (`ipv4.read_transport`)."""
    return packet.protocol == ipv4.UDP and not packet.offset_bytes and packet.destination_port == CLIENT_PORT


def read(packet: Packet) -> Message | Drop:
    """The message of a whole UDP packet whose ports have been read, or why there is none.

    A server's source port is not looked at, relays use others. A first fragment is DHCP_MALFORMED: option 57 tells
    servers a size that needs no fragments.
    """
    if packet.is_fragment:
        return Drop.DHCP_MALFORMED
    datagram = memoryview(packet.data)[packet.header_bytes :]
    size = datagram[4] << 8 | datagram[5]
    if size < _UDP.size or size > len(datagram):
        return Drop.TRANSPORT_SHORT
    datagram = datagram[:size]
    partial = packet.gso is not None and packet.gso.partial  # the kernel left it to the device: not damaged
    if not partial and (datagram[6] or datagram[7]):
        pseudo = pseudo_header_sum(packet.source, packet.destination, ipv4.UDP, size)
        if ones_sum(datagram, pseudo) != 0xFFFF:
            return Drop.DHCP_MALFORMED
    return message.parse(datagram[_UDP.size :])


def broadcast(mac: bytes, source: int, payload: bytes) -> bytes:
    """The Ethernet frame to all servers. `source`: 0 before an address is in use."""
    return BROADCAST + mac + IPV4_TYPE + unicast(source, ipv4.BROADCAST, payload)


def unicast(source: int, destination: int, payload: bytes) -> bytes:
    """The IPv4 packet to one server; the port finds the next hop."""
    size = _UDP.size + len(payload)
    pseudo = pseudo_header_sum(source, destination, ipv4.UDP, size)
    head = _UDP.pack(CLIENT_PORT, SERVER_PORT, size, 0)
    check = checksum(head + payload, pseudo) or 0xFFFF
    head = _UDP.pack(CLIENT_PORT, SERVER_PORT, size, check)
    return ipv4.header(source, destination, ipv4.UDP, size) + head + payload
