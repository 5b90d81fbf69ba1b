"""UDP, IPv4 and Ethernet around a message."""

from __future__ import annotations

import pytest
from dhcp_bench import MAC, granted, packet_of, reply
from scapy.layers.inet import IP, UDP

from dhcp import datagram
from dhcp.message import Message
from wire.drop import Drop
from wire.gso import GsoHeader


def test_d8_a_servers_packet_is_read() -> None:
    read = datagram.read(packet_of(reply("offer", 5, granted())))
    assert isinstance(read, Message)
    assert read.xid == 5


def test_d8_a_damaged_packet_is_a_drop_and_a_checksum_of_zero_is_none() -> None:
    data = bytearray(reply("offer", 5, granted()))
    data[100] ^= 1
    assert datagram.read(packet_of(bytes(data))) is Drop.DHCP_MALFORMED
    data[26:28] = bytes(2)
    assert isinstance(datagram.read(packet_of(bytes(data))), Message)


def test_d8_a_checksum_that_the_kernel_left_to_the_device_is_no_damage() -> None:
    packet = packet_of(reply("offer", 5, granted()))
    packet.data[100] ^= 1
    packet.gso = GsoHeader(True, 0, 0, 0, 20, 6)
    assert isinstance(datagram.read(packet), Message)


@pytest.mark.parametrize("flags", ["MF"])
def test_d8_fragments_are_not_put_together(flags: str) -> None:
    ip = IP(reply("offer", 5, granted()))
    ip.flags = flags
    del ip.chksum
    assert datagram.read(packet_of(bytes(ip))) is Drop.DHCP_MALFORMED


def test_d8_bytes_behind_the_udp_length_are_no_options() -> None:
    ip = IP(reply("offer", 5, granted()))
    whole = ip[UDP].len
    ip = IP(bytes(ip) + b"\x33")
    ip.len += 1
    del ip.chksum
    assert ip[UDP].len == whole
    assert isinstance(datagram.read(packet_of(bytes(ip))), Message)


def test_d2_frames_go_to_everybody_and_packets_to_one() -> None:
    frame = datagram.broadcast(MAC, 0, bytes(300))
    assert frame[:14] == b"\xff" * 6 + MAC + b"\x08\x00"
    ip = IP(frame[14:])
    assert (ip.src, ip.dst, ip[UDP].sport, ip[UDP].dport, ip.ttl) == ("0.0.0.0", "255.255.255.255", 68, 67, 64)
    one = IP(datagram.unicast(1, 2, b"odd"))
    assert (one.src, one.dst, one[UDP].len) == ("0.0.0.1", "0.0.0.2", 11)
    for packet in (ip, one):
        again = packet.copy()
        del again.chksum, again[UDP].chksum
        assert bytes(again) == bytes(packet)


def test_d18_only_udp_to_the_clients_port_is_for_the_client() -> None:
    assert datagram.is_for_client(packet_of(reply("offer", 5)))
    assert not datagram.is_for_client(packet_of(reply("offer", 5, port=67)))
