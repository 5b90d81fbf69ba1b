"""The pair of ends of `trials.fuzz.lane_world` for tests: a test that imports it is skipped where nothing was
compiled."""

from __future__ import annotations

import os

import pytest

try:
    from trials.fuzz.lane_world import KEYS, LOOPBACK, MTU_BYTES, VPN, LaneWorld, cut, left
except ImportError as missing:
    if os.environ.get("CI") == "true" and not os.environ.get("WITHOUT_COMPILER"):  # as `tests.compiled`
        raise
    pytest.skip(f"not compiled here: {missing}", allow_module_level=True)

__all__ = ["KEYS", "LOOPBACK", "MTU_BYTES", "VPN", "LaneWorld", "cut", "left"]
