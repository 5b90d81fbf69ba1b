"""The fuzzer itself: it runs, it is deterministic, and its checks can fail."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest

from bench import fuzz_frames
from bench.hostile import Failure
from bridge.effects import Send


def test_a_few_thousand_hostile_inputs_break_nothing() -> None:
    assert fuzz_frames.run(300, seed=1, seeds=[], most=4000) == 4000


def test_the_same_seed_gives_the_same_inputs() -> None:
    first, second = (list(islice(fuzz_frames.inputs(random.Random(7), []), 200)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("port", "source", "words"),
    [
        ("vpn", "c0a8c80a", "LAN address"),  # 192.168.200.10 un-aliased
        ("tap1", "c0a8c80a", "LAN address"),
        ("vpn", "cb007105", "reflected"),
    ],
)
def test_a_leak_or_a_reflection_is_found(tmp_path: Path, port: str, source: str, words: str) -> None:
    gateway = fuzz_frames.gateway_of(tmp_path, 0)
    raw = fuzz_frames.repaired(bytes.fromhex("4500001c000040004011000000000000cb007106") + b"\0\1\0\2\0\x08\0\0")
    raw = fuzz_frames.repaired(raw[:12] + bytes.fromhex(source) + raw[16:])
    frame = bytes(12) + b"\x08\0" + raw if port in fuzz_frames.MACS else raw
    with pytest.raises(Failure, match=words):
        fuzz_frames.check(gateway, port, Send(port, frame, None))


def test_a_wrong_transport_checksum_is_found() -> None:
    rng = random.Random(3)
    raw = next(
        data
        for data in (fuzz_frames.packet(rng) for _ in range(1000))
        if data[9] == 6 and data[6] & 0x3F == 0 and int.from_bytes(data[20:22], "big")
    )
    broken = bytearray(raw)
    broken[36] ^= 1
    with pytest.raises(Failure, match="transport checksum"):
        fuzz_frames.check_checksum_kept(raw, [Send("vpn", bytes(broken), None)])
