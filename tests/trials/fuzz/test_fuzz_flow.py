"""The fuzz target for the flow table: it runs, it is deterministic, and its checks can fail."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from flow.plain import PlainTable
from trials.fuzz.hostile import Failure, run
from trials.fuzz.targets import flow as fuzz_flow


def test_a_few_thousand_calls_and_frames_break_nothing() -> None:
    assert run(fuzz_flow.TARGET, 300, seed=1, most=5000) == 5000


def test_most_kinds_of_punts_and_many_repeats_are_met(tmp_path: Path) -> None:
    twins = fuzz_flow.Twins(tmp_path, fuzz_flow.STATIC_ARP, 1)
    rng = random.Random(1)
    for _ in range(3000):
        fuzz_flow.gateway_step(twins, rng)
    assert twins.repeated > 100
    assert sum(map(bool, twins.punts.values())) >= 7, twins.punts


def test_a_stale_decision_is_found(tmp_path: Path) -> None:
    class Forgetful(PlainTable):
        def outdate(self) -> None:
            """Nothing: routes may change, decisions stay."""

    def search() -> None:
        for seed in range(20):
            twins = fuzz_flow.Twins(tmp_path, fuzz_flow.STATIC_ARP, seed, Forgetful)
            rng = random.Random(seed)
            for _ in range(500):
                fuzz_flow.gateway_step(twins, rng)

    with pytest.raises(Failure):
        search()


def test_hits_that_nobody_tells_are_found(tmp_path: Path) -> None:
    class Silent(PlainTable):
        def harvest(self, limit: int, now: int) -> list[object]:  # type: ignore[override]
            super().harvest(limit, now)
            return []

    twins = fuzz_flow.Twins(tmp_path, fuzz_flow.STATIC_ARP, 1, Silent)
    frame = (
        fuzz_flow.MACS["tap0"]
        + b"\x08\0"
        + fuzz_flow.packet(17, (fuzz_flow.LAN_HOSTS[0], 1, fuzz_flow.REMOTES[0], 2), flags=0x4000)
    )
    for _ in range(2):
        twins.inject("tap0", frame)
    with pytest.raises(Failure, match="packets 2, repeated: 1"):
        twins.compare_links()
