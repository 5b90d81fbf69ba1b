"""The port vpn and the path's MTU: what a narrow path means for packets of the walk."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Raw

from bridge.config.into_tunnel import Peers
from bridge.control.answers.peers import described
from bridge.vpn.port import TELL_MTU_AFTER_S
from tests.bridge.vpn.test_vpn_port import FAR, HK, HOST, REMOTE, SG, World, make, udp
from tunnel.effects import Datagram, Endpoint, PathState, TooBig
from wire.drop import Drop
from wire.gso import GSO_TCPV4, GsoHeader

__all__ = ["make"]  # the fixture
ROUTER = bytes((198, 51, 100, 7))
NARROW = 1280 - 60
FIT = NARROW & ~15
"""What may be padded to a multiple of 16 and still passes."""


def big(size: int, *, df: bool, number: int = 0, destination: str = REMOTE) -> IP:
    """A UDP packet of `size` bytes."""
    payload = bytes(range(256)) * 8
    ports = UDP(sport=5000 + number, dport=53)
    return IP(src=HOST, dst=destination, ttl=64, id=7, flags="DF" if df else 0) / ports / Raw(payload[: size - 28])


def told(datagram: Datagram, mtu_bytes: int = 1280) -> TooBig:
    """A router's message about a datagram of ours, with as much of it as routers quote."""
    return TooBig(datagram.endpoint, mtu_bytes, datagram.data[:548], ROUTER)


def tell(world: World, *signals: TooBig) -> None:
    """They wait to be read, as datagrams do."""
    world.wire.signals += signals
    world.wire.deliver([])


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    """A session, and a path that has just turned out to carry 1,280 bytes."""
    world = make()
    world.send(udp())
    world.meet()
    world.send(big(1420, df=True))
    [lost] = [datagram for datagram in world.take() if len(datagram.data) == 1452]
    tell(world, told(lost))
    world.loop.turn(0)
    world.received()
    assert world.gateway.mtus.known == {"vpn": NARROW}
    return world


def test_q3_w28_a_packet_with_df_that_is_too_long_is_answered_with_the_right_number(world: World) -> None:
    """Q3, Q1: 3/4 to the host, whose kernel keeps it for the destination; nothing leaves."""
    world.take()
    world.send(big(NARROW + 1, df=True))
    [error] = world.received()
    assert (error[ICMP].type, error[ICMP].code, error[ICMP].nexthopmtu, error.dst) == (3, 4, NARROW, HOST)
    assert IP(bytes(error[ICMP].payload)).len == NARROW + 1
    assert world.take() == []
    world.send(big(NARROW, df=True))
    assert [len(datagram.data) + 28 for datagram in world.wire.sent] == [1280]
    assert len(world.meet()) == 1


def test_q3_w28_a_packet_without_df_leaves_in_fragments_that_fit(world: World) -> None:
    packet = big(1420, df=False)
    world.send(packet)
    assert max(len(datagram.data) + 28 for datagram in world.wire.sent) <= 1280
    pieces = [IP(piece) for piece in world.meet()]
    assert [piece.frag for piece in pieces] == [0, (NARROW - 20) // 8]
    assert b"".join(bytes(piece.payload) for piece in pieces) == bytes(packet.payload)


def test_g29_the_mss_of_both_directions_fits_the_path(world: World) -> None:
    """G29, Q6: SYN and SYN-ACK both say what fits, whoever calls."""
    syn = IP(src=HOST, dst=REMOTE) / TCP(sport=5000, dport=80, flags="S", options=[("MSS", 1380)])
    world.send(syn)
    [out] = [IP(packet) for packet in world.meet()]
    assert dict(out[TCP].options)["MSS"] == FIT - 40
    answer = IP(src=REMOTE, dst=HOST) / TCP(sport=80, dport=5000, flags="SA", ack=1, options=[("MSS", 1380)])
    world.wire.deliver(world.far.send("home", [bytes(answer)], world.now).datagrams)
    world.loop.turn(0)
    [back] = [packet for packet in world.received() if TCP in packet]
    assert dict(back[TCP].options)["MSS"] == FIT - 40


def test_a_super_frame_of_segments_that_are_too_long_is_answered(world: World) -> None:
    world.take()
    whole = IP(bytes(IP(src=HOST, dst=REMOTE, flags="DF") / TCP(sport=5000, dport=80, flags="A") / Raw(bytes(9000))))
    world.send(whole, gso=GsoHeader(True, GSO_TCPV4, 40, 1380, 20, 16))
    [error] = world.received()
    assert (error[ICMP].code, error[ICMP].nexthopmtu) == (4, NARROW)
    assert world.take() == []


def test_what_comes_from_a_narrow_path_is_delivered_whole(world: World) -> None:
    """The other direction is another path."""
    answer = IP(src=REMOTE, dst=HOST, flags="DF") / UDP(sport=53, dport=5000) / Raw(bytes(1392))
    world.wire.deliver(world.far.send("home", [bytes(answer)], world.now).datagrams)
    world.loop.turn(0)
    assert [packet.len for packet in world.received()] == [1420]


def test_what_waited_for_its_session_is_cut_or_answered_when_it_no_longer_fits(make: Callable[..., World]) -> None:
    world = make()
    world.send(big(1420, df=True, number=1), big(1420, df=False, number=2), udp(3))
    world.vpn.tunnel._by_name["hk"].path.told(1280, world.now)
    packets = [IP(packet) for packet in world.meet()]
    assert [(packet.frag, packet.len) for packet in packets] == [(0, 68), (0, 1220), (150, 220)]
    [error] = world.received()
    assert (error[ICMP].type, error[ICMP].code, error[ICMP].nexthopmtu) == (3, 4, NARROW)
    assert IP(bytes(error[ICMP].payload))[UDP].sport == 5001
    assert world.drops() == {Drop.TUNNEL_TOO_BIG: 2}


def test_q3_a_forged_signal_is_counted_and_changes_nothing(make: Callable[..., World]) -> None:
    world = make()
    world.send(udp())
    world.meet()
    for quoted in (b"", b"\4\0\0\0", b"\4\0\0\0" + bytes(40), bytes(548)):
        tell(world, TooBig(FAR, 576, quoted, ROUTER))
    world.loop.turn(0)
    assert world.gateway.mtus.known == {"vpn": 1420}
    assert world.drops() == {Drop.TUNNEL_SIGNAL: 4}


def test_each_node_has_its_own_path_and_a_reload_keeps_it(make: Callable[..., World]) -> None:
    world = make(HK, replace(SG, endpoint=Endpoint(bytes((192, 0, 2, 3)), 51820)))
    world.send(udp())
    world.meet()
    tell(world, TooBig(FAR, 1400, b"", b""))  # our own device
    world.loop.turn(0)
    assert world.gateway.mtus.known == {"vpn": 1340, "vpn:sg": 1420}
    world.take()
    world.send(big(1420, df=True), big(1420, df=True, destination="9.9.9.9"))
    [error] = world.received()
    assert (error[ICMP].nexthopmtu, IP(bytes(error[ICMP].payload)).dst) == (1340, REMOTE)
    world.vpn.reconfigure(Peers((HK,), {}), {"sg"})
    assert world.gateway.mtus.known == {"vpn": 1340}


def test_the_mtu_is_told_and_logged_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    [hk, sg] = described(world.config, world.vpn.status(), world.now)["peers"]
    assert (hk["mtu"], hk["mtu_state"], sg["mtu"]) == (NARROW, PathState.LOWERED, None)
    with caplog.at_level(logging.INFO):
        tell(world, TooBig(FAR, 1270, b"", b""), TooBig(FAR, 1260, b"", b""))
        world.loop.turn(0)
        world.wait(TELL_MTU_AFTER_S + 2)
    assert [record.getMessage() for record in caplog.records if "at most" in record.message] == [
        "packets for hk have 1200 bytes at most"
    ]
