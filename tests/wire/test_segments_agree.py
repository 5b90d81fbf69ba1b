"""Cutting and merging, compiled against plain: the same bytes for whatever comes."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.compiled import compiled
from wire.checksum import checksum, pseudo_header_sum
from wire.coalesce import coalesce
from wire.gso import GSO_ECN, GSO_TCPV4, GSO_UDP_L4, GsoHeader, is_consistent, segment

TCP, UDP = 6, 17
LONGEST = 65_535
FIN, PSH, ACK, URG, CWR = 0x01, 0x08, 0x10, 0x20, 0x80


def header(protocol: int, size: int, options: bytes, rng: random.Random) -> bytearray:
    """An IPv4 header for a packet of `size` bytes, with any addresses."""
    made = bytearray(rng.randbytes(20 + len(options)))
    made[0] = 0x40 | len(made) // 4
    made[2:4] = size.to_bytes(2, "big")
    made[6:8] = b"\x40\0"
    made[9] = protocol
    made[10:12] = bytes(2)
    made[20:] = options
    made[10:12] = checksum(made).to_bytes(2, "big")
    return made


def super_frame(
    protocol: int, payload: int, ip_options: int, tcp_options: int, flags: int, seed: int, zeros: bool
) -> bytearray:
    """A packet with a partial checksum."""
    rng = random.Random(seed)
    transport = 20 + 4 * tcp_options if protocol == TCP else 8
    size = 20 + 4 * ip_options + transport + payload
    packet = header(protocol, size, rng.randbytes(4 * ip_options), rng)
    at = len(packet)
    packet += rng.randbytes(transport) + (bytes(payload) if zeros else rng.randbytes(payload))
    field = at + (16 if protocol == TCP else 6)
    if protocol == TCP:
        packet[at + 12 : at + 14] = bytes([transport // 4 << 4, flags])
    else:
        packet[at + 4 : at + 6] = (size - at).to_bytes(2, "big")
    source, destination = (int.from_bytes(packet[place : place + 4], "big") for place in (12, 16))
    packet[field : field + 2] = pseudo_header_sum(source, destination, protocol, size - at).to_bytes(2, "big")
    return packet


@settings(deadline=None)
@given(
    protocol=st.sampled_from([TCP, UDP]),
    payload=st.one_of(st.integers(0, 3000), st.integers(0, LONGEST - 120)),
    gso=st.one_of(st.integers(8, 64), st.integers(500, 1500), st.just(LONGEST)),
    ip_options=st.sampled_from([0, 0, 0, 1, 10]),
    tcp_options=st.sampled_from([0, 3, 10]),
    flags=st.integers(0, 255),
    seed=st.integers(0, 1 << 32),
    zeros=st.booleans(),
    is_super=st.booleans(),
)
@example(TCP, 0, 8, 0, 0, 0xFF, 1, False, True)
@example(UDP, 0, 8, 0, 0, 0, 1, False, True)
@example(TCP, 65_400, 8, 0, 0, 0x99, 1, False, True)
def test_both_cut_a_packet_into_the_same_pieces(
    protocol: int,
    payload: int,
    gso: int,
    ip_options: int,
    tcp_options: int,
    flags: int,
    seed: int,
    zeros: bool,
    is_super: bool,
) -> None:
    packet = super_frame(protocol, payload, ip_options, tcp_options, flags, seed, zeros)
    kind = (GSO_TCPV4 | GSO_ECN if flags & CWR else GSO_TCPV4) if protocol == TCP else GSO_UDP_L4
    start = 20 + 4 * ip_options
    claims = GsoHeader(True, kind if is_super else 0, 0, gso if is_super else 0, start, 16 if protocol == TCP else 6)
    if payload > 128 * gso and protocol == UDP:
        claims = claims._replace(gso_bytes=gso * 1024 if is_super else 0)
    assert not is_super or is_consistent(packet, claims)
    before = bytes(packet)
    cut = compiled("wire.segments", "segment")(before, claims)
    assert cut == [bytes(piece) for piece in segment(bytearray(packet), claims)]
    assert packet == before


def test_a_udp_checksum_of_zero_is_written_as_ones_by_both() -> None:
    found = set()
    for number in range(1 << 16):
        packet = super_frame(UDP, 2, 0, 0, 0, 5, True)
        packet[28:30] = number.to_bytes(2, "big")
        claims = GsoHeader(True, GSO_UDP_L4, 0, 2, 20, 6)
        [piece] = compiled("wire.segments", "segment")(packet, claims)
        found.add(piece[26:28])
        if piece[26:28] in (b"\xff\xff", b"\0\0"):
            assert [bytes(whole) for whole in segment(bytearray(packet), claims)] == [piece]
    assert b"\xff\xff" in found
    assert b"\0\0" not in found


@given(
    packet=st.binary(max_size=200),
    claims=st.builds(
        GsoHeader,
        st.booleans(),
        st.integers(0, 255),
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFF),
    ),
)
def test_claims_of_any_kind_are_refused_or_kept_within_the_packet(packet: bytes, claims: GsoHeader) -> None:
    try:
        cut = compiled("wire.segments", "segment")(packet, claims)
    except ValueError:
        return
    assert sum(map(len, cut)) >= len(packet)
    assert all(len(piece) <= len(packet) for piece in cut)


def segments(rng: random.Random, count: int, size: int, *, sport: int, step: int = 1) -> list[bytes]:
    """Segments as a bulk sender makes them."""
    sequence, number = rng.randrange(1 << 32), rng.randrange(1 << 16)
    ends = b"\x08\x08\x08\x08\xc0\xa8\xc0\xd2" + sport.to_bytes(2, "big") + b"\x13\x88"
    options = b"\1\1\x08\x0a" + bytes(8) if rng.random() < 0.7 else b""
    made = []
    for at in range(count):
        length = 40 + len(options) + size
        packet = bytearray(b"\x45\0" + length.to_bytes(2, "big") + ((number + at * step) & 0xFFFF).to_bytes(2, "big"))
        packet += b"\x40\0\x39\x06\0\0" + ends + ((sequence + at * size) & 0xFFFFFFFF).to_bytes(4, "big")
        packet += b"\0\0\0\x4d" + bytes([(20 + len(options)) // 4 << 4, ACK, 1, 2, 0, 0, 0, 0]) + options
        packet += rng.randbytes(size)
        made.append(whole(packet))
    return made


def whole(packet: bytearray) -> bytes:
    """With right checksums."""
    packet[10:12] = packet[36:38] = bytes(2)
    packet[10:12] = checksum(packet[:20]).to_bytes(2, "big")
    source, destination = (int.from_bytes(packet[place : place + 4], "big") for place in (12, 16))
    pseudo = pseudo_header_sum(source, destination, TCP, len(packet) - 20)
    packet[36:38] = checksum(packet[20:], pseudo).to_bytes(2, "big")
    return bytes(packet)


def changed(packet: bytes, at: int, value: int, *, mended: bool) -> bytes:
    spoiled = bytearray(packet)
    spoiled[at % len(spoiled)] = value
    return whole(spoiled) if mended and len(spoiled) >= 40 else bytes(spoiled)


@settings(deadline=None, max_examples=300)
@given(
    seed=st.integers(0, 1 << 32),
    flows=st.lists(
        st.tuples(st.integers(1, 60), st.sampled_from([7, 8, 100, 536, 1368, 30_000]), st.sampled_from([0, 1, 2])),
        max_size=8,
    ),
    mixing=st.sampled_from(["in turn", "one by one", "at random", "a little"]),
    harm=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 60), st.integers(0, 255), st.booleans()), max_size=12),
    shorter=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 60)), max_size=4),
    strange=st.lists(st.tuples(st.integers(0, 500), st.binary(max_size=60)), max_size=4),
    pushed=st.sets(st.integers(0, 500), max_size=6),
)
def test_both_merge_the_same_packets_in_the_same_order(
    seed: int,
    flows: list[tuple[int, int, int]],
    mixing: str,
    harm: list[tuple[int, int, int, bool]],
    shorter: list[tuple[int, int]],
    strange: list[tuple[int, bytes]],
    pushed: set[int],
) -> None:
    rng = random.Random(seed)
    runs = [segments(rng, count, size, sport=443 + at, step=step) for at, (count, size, step) in enumerate(flows)]
    packets = mixed(runs, mixing, rng)[:480]
    for at in pushed:
        if packets:
            chosen = packets[at % len(packets)]
            packets[at % len(packets)] = changed(chosen, 33, ACK | PSH, mended=True)
    for number, at, value, mended in harm:
        if packets:
            packets[number % len(packets)] = changed(packets[number % len(packets)], at, value, mended=mended)
    for number, by in shorter:
        if packets:
            chosen = packets[number % len(packets)]
            packets[number % len(packets)] = chosen[: max(len(chosen) - by, 0)]
    for at, packet in strange:
        packets.insert(at % (len(packets) + 1), packet)
    assert compiled("wire.segments", "coalesce")(packets) == coalesce(packets)


def mixed(runs: list[list[bytes]], how: str, rng: random.Random) -> list[bytes]:
    packets = [packet for run in runs for packet in run]
    if how == "at random":
        rng.shuffle(packets)
    elif how == "a little":
        for _ in range(len(packets) // 8):
            at = rng.randrange(len(packets))
            packets.insert(max(at - 2, 0), packets.pop(at))
    elif how == "in turn":
        packets = [run[at] for at in range(max(map(len, runs), default=0)) for run in runs if at < len(run)]
    return packets


def test_a_burst_of_as_many_flows_as_packets_is_found_through() -> None:
    rng = random.Random(4)
    packets = [segments(rng, 1, 100, sport=port)[0] for port in range(640)]
    assert compiled("wire.segments", "coalesce")(packets) == coalesce(packets) == [(packet, None) for packet in packets]
    with pytest.raises(ValueError, match="641 packets at once"):
        compiled("wire.segments", "coalesce")([*packets, b""])


def test_only_bytes_come_near_a_pointer() -> None:
    merge: Callable[[list[object]], object] = compiled("wire.segments", "coalesce")
    for packet in (bytearray(40), memoryview(b"8"), None, 7):
        with pytest.raises(TypeError):
            merge([b"", packet])
