"""Fixtures of the walk's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bridge.walk.super_frames import Pair
from tests.bridge.walk.twin_world import TwinWorld
from tests.compiled import table_kind
from trials.fuzz.targets.flow import STATIC_ARP


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., Pair]:
    """Makes two gateways of one seed."""
    return lambda *args, **options: Pair(tmp_path, *args, **options)


@pytest.fixture(params=["plain", "compiled"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., TwinWorld]:
    """Makes twins: one gateway repeats decisions with either flow table, the other walks every frame."""
    kind = table_kind(request.param)

    def build(configuration: str = STATIC_ARP, limit: int = 64) -> TwinWorld:
        return TwinWorld(tmp_path, configuration, 1, lambda: kind(limit))

    return build
