"""The smallest benchmark from end to end: the kernel and ours, one round, one second of each load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lab.topology import topology
from tests.laboratory import needing_the_kernel
from trials.bench.__main__ import main
from trials.bench.contestants import KERNEL, OFFLOAD, OURS, is_compiled
from trials.bench.turn import MEASURES

pytestmark = pytest.mark.lab
_OF_TUNNELS = {"cpu_gb_far_up", "cpu_gb_far_down"}


def names() -> set[str]:
    folder = Path("/run/netns")
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_the_smallest_benchmark_measures_ours_and_the_kernel_and_leaves_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with needing_the_kernel(), topology():
        pass
    before = names()
    ours = OURS if is_compiled() else "ours-plain"
    arguments = ["--only", OFFLOAD, "--peers", f"{KERNEL} {ours}", "--rounds", "1", "--seconds", "1", "--json"]
    assert main(arguments) == 0
    told = json.loads(capfd.readouterr().out)
    assert not any(turn["missing"] for turn in told["turns"]), told["turns"]
    assert {f"part `{part}`: not asked for" for part in ("tunnel", "gateway", "rooms")} <= set(told["not_measured"])
    found = {(figure["contestant"], figure["key"]) for figure in told["figures"] if figure["median"] > 0}
    wanted = set(MEASURES) - _OF_TUNNELS
    assert {key for name, key in found if name == ours} >= wanted
    if shutil.which("nft") is None:
        assert any("nftables" in (taker["absent"] or "") for taker in told["contestants"])
    else:
        assert {key for name, key in found if name == KERNEL} >= wanted - {"rss_mb"}
    assert {turn["contestant"] for turn in told["turns"]} == {name for name, _ in found}
    assert names() == before
