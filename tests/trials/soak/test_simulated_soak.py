"""Days of a LAN under the virtual clock in short, and that what stays behind is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from alias.fragments import FragmentStore
from bridge.walk.balance import Unbalanced
from bridge.walk.counters import Counters
from trials.soak.days import SimulatedSoak, Unfit
from trials.soak.world import SoakWorld


def test_two_days_and_their_nights_leave_nothing_behind(tmp_path: Path) -> None:
    """`python -m trials.soak.days` runs twenty, with ten times as much in each."""
    soak = SimulatedSoak(tmp_path, seed=7, busy=0.06, slack_s=1.0)
    soak.run(2)
    told = soak.document()
    assert told["frames_in"] > 30_000
    assert told["repeated"] > 5_000
    assert len(told["nights"]) == 3
    assert told["most_links"] > 1000, "the ports of one host ran out"
    assert all(fates["held"] == 0 for fates in told["fates"].values())
    assert len(told["drops"]) > 15


def test_the_same_seed_gives_the_same_day(tmp_path: Path) -> None:
    told = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        soak = SimulatedSoak(tmp_path / name, seed=3, busy=0.02, slack_s=5.0)
        soak.run(0.3)
        told.append({key: value for key, value in soak.document().items() if key in ("fates", "drops", "frames_out")})
    assert told[0] == told[1]


def test_a_fragment_that_is_kept_for_ever_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FragmentStore, "tick", lambda self, now: [])
    monkeypatch.setattr(FragmentStore, "next_deadline", lambda self: None)
    with pytest.raises(Unfit, match=r"not empty at the end of the night.*fragments"):
        SimulatedSoak(tmp_path, seed=3, busy=0.05, slack_s=5.0).run(1)


def test_a_drop_that_nobody_counts_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counters, "dropped", lambda self, port, reason: None)
    with pytest.raises(Unbalanced, match="without a fate"):
        SimulatedSoak(tmp_path, seed=3, busy=0.05, slack_s=5.0).run(0.3)


def test_a_frame_that_leaves_uncounted_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(world: SoakWorld, port: str, frame: bytes) -> None:
        world._settle()

    monkeypatch.setattr(SoakWorld, "_left", silent)
    with pytest.raises(Unfit, match="outside there were"):
        SimulatedSoak(tmp_path, seed=3, busy=0.05, slack_s=5.0).run(0.3)
