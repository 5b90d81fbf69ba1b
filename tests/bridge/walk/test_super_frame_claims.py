"""Claims of a device that contradict the packet, or that mean an inner checksum; the MSS of partial SYNs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw

from tests.bridge.walk.super_frames import (
    DATA,
    Pair,
    claims_of,
    completed,
    cut,
    each_egress,
    each_layer,
    ip_of,
    opened,
    partial,
    tcp,
    udp,
)
from tests.conformance.harness import (
    HOST,
    A,
    E,
)
from wire.drop import Drop
from wire.gso import GSO_TCPV4, GSO_UDP_L4, GsoHeader

# MSS


@pytest.mark.parametrize(
    "options",
    [[("MSS", 1460)], [("NOP", None), ("MSS", 1460)], [("SAckOK", b""), ("NOP", None), ("MSS", 1460), ("WScale", 7)]],
    ids=["even", "odd", "among others"],
)
def test_the_mss_of_a_partial_syn_is_clamped_without_touching_its_checksum(
    pair: Callable[..., Pair], options: list[tuple[str, object]]
) -> None:
    """The partial checksum does not cover the options yet: completed, it is right; so is the SYN+ACK's."""
    p = pair("V")
    syn = p.both("L", IP(src=A, dst=E) / TCP(sport=5000, dport=7000, flags="S", options=options))
    assert dict(ip_of(syn[0])[TCP].options)["MSS"] == 1380
    answer = p.both("V", IP(src=E, dst=p.X) / TCP(sport=7000, dport=5000, flags="SA", options=options))
    assert dict(ip_of(answer[0])[TCP].options)["MSS"] == 1380


# Claims that contradict the packet


@pytest.mark.parametrize(
    "change",
    [
        {"gso_type": GSO_UDP_L4, "gso_bytes": 1200},
        {"gso_type": 3, "gso_bytes": 1200},
        {"gso_type": 4, "gso_bytes": 1200},
        {"gso_type": 77, "gso_bytes": 1200},
        {"gso_type": GSO_TCPV4, "gso_bytes": 0},
        {"gso_type": GSO_TCPV4, "gso_bytes": 7},
        {"gso_type": GSO_TCPV4, "gso_bytes": 1200, "checksum_start": 24},
        {"gso_type": GSO_TCPV4, "gso_bytes": 1200, "checksum_offset": 6},
        {"checksum_start": 0},
        {"checksum_start": -14},
        {"checksum_start": 19},
        {"checksum_start": 65_000},
        {"checksum_offset": 65_000},
    ],
)
@pytest.mark.parametrize("port", ["L", "O", "U", "V"])
def test_claims_that_contradict_the_packet_cost_the_packet(
    pair: Callable[..., Pair], port: str, change: dict[str, int]
) -> None:
    p = pair("O")
    opened(p, tcp)
    source, destination = {"L": (A, E), "O": (E, p.X), "U": (HOST, E), "V": ("8.8.8.8", HOST)}[port]
    raw = partial(IP(src=source, dst=destination) / tcp(5000, 5000) / DATA)
    assert p.take(port, raw, claims_of(raw)._replace(**change)) == []
    assert p.drops[-1] == Drop.PORT_MALFORMED


def test_a_fragment_is_no_super_frame(pair: Callable[..., Pair]) -> None:
    p = pair("O")
    for flags, frag in (("MF", 0), ("MF", 100), (0, 100)):
        raw = partial(IP(src=A, dst=E, flags=flags, frag=frag) / udp(5000, 7000) / DATA[:1200])
        assert p.take("L", raw, claims_of(raw, 400)) == []
        assert p.drops[-1] == Drop.PORT_MALFORMED


@pytest.mark.parametrize("protocol", [1, 47, 50, 132])
def test_only_tcp_and_udp_come_as_super_frames(pair: Callable[..., Pair], protocol: int) -> None:
    p = pair("O")
    raw = bytes(IP(src=A, dst=E, proto=protocol) / Raw(b"\x08" + bytes(2999)))
    for kind in (GSO_TCPV4, GSO_UDP_L4):
        assert p.take("L", raw, GsoHeader(True, kind, 40, 1200, 20, 16)) == []
        assert p.drops[-1] == Drop.PORT_MALFORMED


@each_layer
def test_a_super_frame_with_a_truncated_header_is_dropped(
    pair: Callable[..., Pair], layer: Callable[[int, int], ScapyPacket]
) -> None:
    p = pair("O")
    whole = bytes(partial(IP(src=A, dst=E) / layer(5000, 7000)))
    claims = claims_of(whole, 1200)
    for size in range(20, len(whole)):
        packet = IP(whole[:size])
        del packet.len, packet.chksum
        assert p.take("L", bytes(packet), claims) == []
    assert set(p.drops) <= {Drop.PORT_MALFORMED, Drop.TRANSPORT_SHORT}


def test_a_super_frame_whose_checksum_the_device_has_verified_is_treated_as_partial(pair: Callable[..., Pair]) -> None:
    """A device that merges segments itself may say no more than their size: nothing is covered by a whole checksum
    then, and the segments get theirs anew, as in the kernel."""
    p = pair("O")
    packet = IP(src=A, dst=E, flags="DF") / tcp(5000, 7000) / DATA
    raw = partial(packet)
    for field in (b"\0\0", b"\x12\x34", bytes(packet)[36:38]):
        told = bytearray(raw)
        told[36:38] = field
        frames = p.take("L", told, GsoHeader(False, GSO_TCPV4, 52, 1200, -14, 0))
        assert frames == p.take_alone("L", cut(raw, claims_of(raw, 1200)))


# Checksums that are not the outer transport's


@pytest.mark.parametrize("outer", ["gre", "udp"])
@each_egress
def test_a_checksum_inside_a_tunnel_is_completed_and_the_packet_is_plain(
    pair: Callable[..., Pair], egress: str, outer: str
) -> None:
    """A LAN host tunnels: its device would have completed the inner checksum; we do, before anything is rewritten."""
    p = pair(egress)
    inner = IP(src="172.31.0.1", dst="172.31.0.2") / TCP(sport=1, dport=2, flags="A") / DATA[:777]
    half = partial(inner)
    if outer == "gre":
        packet = IP(src=A, dst=E, proto=47) / Raw(bytes([0, 0, 8, 0]) + half)
        start = 20 + 4 + 20
        wanted = IP(src=p.X, dst=E, proto=47, ttl=63) / Raw(bytes([0, 0, 8, 0]) + bytes(inner))
    else:
        packet = IP(src=A, dst=E) / UDP(sport=5000, dport=4789, chksum=0) / Raw(half)
        start = 20 + 8 + 20
        wanted = IP(src=p.X, dst=E, ttl=63) / UDP(sport=5000, dport=4789, chksum=0) / Raw(bytes(inner))
    out = p.take("L", bytes(packet), GsoHeader(True, 0, 0, 0, start, 16))
    assert p.gso_headers == [None]
    assert bytes(ip_of(out[0])) == bytes(wanted)


@pytest.mark.parametrize("size", [0, 1, 50])
def test_padding_behind_a_partial_packet_is_not_summed(pair: Callable[..., Pair], size: int) -> None:
    p = pair("O")
    raw = partial(IP(src=A, dst=E) / udp(5000, 7000) / b"four")
    out = p.take("L", raw + bytes(range(1, size + 1)), claims_of(raw))
    assert out == p.take_alone("L", [completed(raw, claims_of(raw))])
