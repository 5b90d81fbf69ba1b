"""Fixtures of the walk's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bridge.walk.super_frames import Pair


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., Pair]:
    """Makes two gateways of one seed."""
    return lambda *args, **options: Pair(tmp_path, *args, **options)
