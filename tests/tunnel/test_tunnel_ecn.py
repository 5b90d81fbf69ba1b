"""Congestion marks on inner and outer headers (RFC 6040), and control messages beside inner packets."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw
from tunnel_world import connected, inner

from tunnel.control import ControlKind, ControlMessage, read
from tunnel.ecn import CE, ECT_0, ECT_1, HANDSHAKE_TOS, NOT_ECT, marked
from tunnel.effects import Received
from tunnel.messages import MessageKind, kind_of
from wire.drop import Drop

DECAPSULATED = [  # RFC 6040, figure 4: rows are the inner field, columns the outer one in the order of its values
    (NOT_ECT, (NOT_ECT, NOT_ECT, NOT_ECT, None)),
    (ECT_0, (ECT_0, ECT_1, ECT_0, CE)),
    (ECT_1, (ECT_1, ECT_1, ECT_1, CE)),
    (CE, (CE, CE, CE, CE)),
]


@pytest.mark.parametrize(("inside", "expected"), DECAPSULATED)
def test_w28_g30_a_mark_from_the_path_reaches_the_inner_header(inside: int, expected: tuple[int | None, ...]) -> None:
    """W28, G30: decapsulation after RFC 6040, the header checksum stays right and DSCP stays the inner one."""
    packets = [
        bytes(IP(src="10.0.0.1", dst="10.0.0.2", tos=0xB8 | inside) / Raw(b"x" * 9)),
        bytes(IPv6(src="fd00::1", dst="fd00::2", tc=0xB8 | inside) / Raw(b"x" * 9)),
    ]
    for outer, wanted in enumerate(expected):
        for packet in packets:
            result = marked(packet, outer)
            if wanted is None:
                assert result is Drop.TUNNEL_CONGESTION
                continue
            assert isinstance(result, bytes)
            parsed = IP(result) if packet[0] >> 4 == 4 else IPv6(result)
            if isinstance(parsed, IP):
                fresh = parsed.copy()
                del fresh.chksum
                assert bytes(fresh) == result
                assert parsed.tos == 0xB8 | wanted
            else:
                assert parsed.tc == 0xB8 | wanted


def test_w28_outer_headers_carry_the_inner_ecn_field_and_no_dscp() -> None:
    world, alice, _ = connected()
    packets = [bytes(IP(src="10.0.0.1", dst="10.0.0.2", tos=0xB8 | ecn) / Raw(b"x")) for ecn in range(4)]
    packets.append(bytes(IPv6(src="fd00::1", dst="fd00::2", tc=0xB8 | CE)))
    assert [datagram.tos for datagram in world.send(alice, "bob", *packets).datagrams] == [0, 1, 2, 3, 3]


def test_w28_handshakes_are_af41_and_keepalives_plain() -> None:
    world, alice, bob = connected()
    world.run(6)
    effects = alice.tunnel.call("bob", world.now)
    answer = bob.tunnel.receive([Received(effects.datagrams[0].data, alice.home)], world.now)
    confirmation = alice.tunnel.receive([Received(answer.datagrams[0].data, bob.home)], world.now)
    seen = [(kind_of(d.data), d.tos) for d in (*effects.datagrams, *answer.datagrams, *confirmation.datagrams)]
    assert seen == [
        (MessageKind.INITIATION, HANDSHAKE_TOS),
        (MessageKind.RESPONSE, HANDSHAKE_TOS),
        (MessageKind.DATA, 0),
    ]


def test_g30_a_marked_datagram_is_delivered_marked_or_counted() -> None:
    world, alice, bob = connected()
    sent = [bytes(IP(src="10.0.0.1", dst="10.0.0.2", tos=ecn) / Raw(b"x")) for ecn in (ECT_0, NOT_ECT)]
    burst = [
        Received(datagram.data, alice.home, CE) for datagram in alice.tunnel.send("bob", sent, world.now).datagrams
    ]
    effects = bob.tunnel.receive(burst, world.now)
    assert [IP(packet).tos for _, packet in effects.packets] == [CE]
    assert effects.drops == {Drop.TUNNEL_CONGESTION: 1}


def test_a_control_message_is_no_packet_and_a_probe_is_answered() -> None:
    world, alice, bob = connected()
    bob.packets.clear()
    probe = ControlMessage(ControlKind.PROBE, 7, bytes(500)).packed()
    effects = bob.tunnel.receive(
        [Received(datagram.data, alice.home) for datagram in alice.tunnel.send("bob", [probe], world.now).datagrams],
        world.now,
    )
    assert (effects.packets, effects.drops) == ([], {})
    assert [len(datagram.data) for datagram in effects.datagrams] == [48]


@pytest.mark.parametrize(
    "plain",
    [
        b"\x01",
        b"\x01\0\0\x07\0\0\0\0",
        b"\x01\x01\0\x08\0\0\0\0",
        b"\x01\0\0\x99\0\0\0\0",
        b"\x0f\0\0\x08\0\0\0\0",
        bytes(16),
    ],
    ids=["cut", "too short a length", "reserved", "beyond its end", "unknown kind", "zeros"],
)
def test_a_malformed_control_message_is_a_counted_drop(plain: bytes) -> None:
    assert read(plain) is None
    world, alice, bob = connected()
    world.send(alice, "bob", plain.ljust(20, b"\0") if len(plain) > 8 else plain)
    world.run(1)
    assert bob.drops == {Drop.TUNNEL_CONTROL: 1}


def test_control_messages_are_read_back_as_written() -> None:
    message = ControlMessage(ControlKind.ANNOUNCE, 2**32 - 1, b"\x18\xc0\xa8\xc8\0")
    assert read(message.packed() + bytes(3)) == message
    assert inner()[0] >> 4 == 4
