"""Merging segments: whatever is merged is cut into the same packets again, and nothing damaged is mended."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw

from wire.coalesce import coalesce
from wire.gso import segment

SOURCE, DESTINATION = "8.8.8.8", "192.168.192.210"


def flow(
    count: int, size: int = 1368, *, sport: int = 443, sequence: int = 2**32 - 5000, first_id: int = 65_530
) -> list[IP]:
    """Segments as a bulk sender makes them."""
    return [
        IP(src=SOURCE, dst=DESTINATION, id=(first_id + at) & 0xFFFF, flags="DF", ttl=57)
        / TCP(
            sport=sport,
            dport=5000,
            seq=(sequence + at * size) & 0xFFFFFFFF,
            ack=77,
            flags="A",
            window=501,
            options=[("NOP", None), ("NOP", None), ("Timestamp", (9, 8))],
        )
        / Raw(random.Random(at).randbytes(size))
        for at in range(count)
    ]


def cut(packets: list[bytes]) -> list[bytes]:
    """The frames after merging and cutting again."""
    return [
        bytes(packet)
        for frame, claims in coalesce(packets)
        for packet in ([frame] if claims is None else segment(bytearray(frame), claims))
    ]


def sizes(packets: list[bytes]) -> list[int]:
    """How many packets each frame holds."""
    return [
        1 if claims is None else len(list(segment(bytearray(frame), claims))) for frame, claims in coalesce(packets)
    ]


def test_a_burst_of_one_flow_is_one_super_frame_with_right_headers() -> None:
    packets = [bytes(packet) for packet in flow(40)]
    [(frame, claims)] = coalesce(packets)
    assert claims is not None
    assert (claims.gso_bytes, claims.header_bytes, claims.partial) == (1368, 52, True)
    parsed = IP(bytes(frame))
    assert parsed.len == len(frame) == 52 + 40 * 1368
    fresh = parsed.copy()
    del fresh.chksum
    assert IP(bytes(fresh)).chksum == parsed.chksum
    assert cut(packets) == packets


def test_no_frame_is_longer_than_a_packet_can_be() -> None:
    packets = [bytes(packet) for packet in flow(100)]
    assert sizes(packets) == [47, 47, 6]
    assert cut(packets) == packets


def test_a_short_segment_and_a_push_end_a_super_frame() -> None:
    packets = flow(6)
    packets[2][TCP].flags = "PA"
    packets[5][Raw].load = b"the end of it"
    packets = [IP(bytes(packet)) for packet in packets]
    for packet in packets:
        del packet.len, packet.chksum, packet[TCP].chksum
    assert sizes([bytes(packet) for packet in packets]) == [3, 3]
    assert cut([bytes(packet) for packet in packets]) == [bytes(packet) for packet in packets]


@pytest.mark.parametrize(
    "change",
    [
        lambda packet: packet[TCP].__setattr__("flags", "FA"),
        lambda packet: packet[TCP].__setattr__("flags", "RA"),
        lambda packet: packet[TCP].__setattr__("flags", "EA"),
        lambda packet: packet[TCP].__setattr__("flags", "UA"),
        lambda packet: packet[TCP].__setattr__("urgptr", 1),
        lambda packet: packet[TCP].__setattr__("ack", 78),
        lambda packet: packet[TCP].__setattr__("window", 502),
        lambda packet: packet[TCP].__setattr__("seq", packet[TCP].seq + 1),
        lambda packet: packet[TCP].__setattr__("options", [("Timestamp", (9, 9)), ("NOP", None), ("NOP", None)]),
        lambda packet: packet.__setattr__("tos", 3),
        lambda packet: packet.__setattr__("ttl", 56),
        lambda packet: packet.__setattr__("id", 7),
        lambda packet: packet.__setattr__("flags", ""),
        lambda packet: packet.__setattr__("frag", 5),
        lambda packet: packet.__setattr__("flags", "MF"),
        lambda packet: packet.__setattr__("chksum", 1),
        lambda packet: packet[TCP].__setattr__("chksum", 1),
        lambda packet: packet.__setattr__("len", 90),
    ],
)
def test_what_differs_is_not_merged_and_stays_byte_for_byte(change: object) -> None:
    packets = flow(3, first_id=10)
    assert callable(change)
    change(packets[1])
    raw = [bytes(packet) for packet in packets]
    assert sizes(raw) == [1, 1, 1]
    assert cut(raw) == raw


def test_flows_that_interleave_are_merged_apart_and_keep_their_order() -> None:
    one, other = flow(8, sport=443), flow(8, sport=444)
    dns = IP(src=SOURCE, dst=DESTINATION) / UDP(sport=53, dport=53) / Raw(b"answer")
    mixed = [bytes(packet) for pair in zip(one, other, strict=True) for packet in pair]
    mixed.insert(5, bytes(dns))
    assert sizes(mixed) == [8, 8, 1]
    again = cut(mixed)
    assert sorted(again) == sorted(mixed)
    for port in (443, 444):
        assert [packet for packet in again if packet[20:22] == port.to_bytes(2, "big")] == [
            packet for packet in mixed if packet[20:22] == port.to_bytes(2, "big")
        ]


def test_nothing_overtakes_a_packet_of_which_only_the_beginning_came() -> None:
    packets = [bytes(packet) for packet in flow(3)]
    packets[1] = packets[1][:30]
    assert sizes(packets) == [1, 1, 1]
    assert cut(packets) == packets


def test_identifications_that_stand_still_are_merged_only_with_df() -> None:
    packets = flow(4)
    for packet in packets:
        packet.id = 0
    assert sizes([bytes(packet) for packet in packets]) == [4]
    for packet in packets:
        packet.flags = 0
    assert sizes([bytes(packet) for packet in packets]) == [1, 1, 1, 1]


FLOWS = {
    (sport, size): [bytes(packet) for packet in flow(12, size, sport=sport, first_id=sport)]
    for sport in (443, 444, 445)
    for size in (8, 100, 1368)
}


def flow_of(packet: bytes) -> bytes:
    return packet[9:10] + packet[12:24]


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_whatever_comes_leaves_again_flow_by_flow(rng: random.Random) -> None:
    packets: list[bytes] = []
    for sport in (443, 444, 445):
        for packet in FLOWS[sport, rng.choice((8, 100, 1368))][: rng.randrange(12)]:
            data = bytearray(packet)
            if rng.random() < 0.2:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            if rng.random() < 0.05:
                del data[rng.randrange(len(data)) :]
            packets.append(bytes(data))
    packets += [rng.randbytes(rng.randrange(1, 100)) for _ in range(rng.randrange(4))]
    mixed = sorted(packets, key=lambda _: rng.random()) if rng.random() < 0.5 else packets
    again = cut(mixed)
    assert sorted(again) == sorted(mixed)
    for one in set(map(flow_of, mixed)):
        assert [packet for packet in again if flow_of(packet) == one] == [
            packet for packet in mixed if flow_of(packet) == one
        ]
