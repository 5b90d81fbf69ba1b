"""The pair of ends of `bench.lane_world` for tests: skipped where the compiled part is missing."""

from __future__ import annotations

from tests.compiled import compiled

compiled("bridge.ports.lanes", "Lanes")

from bench.lane_world import KEYS, LOOPBACK, MTU_BYTES, VPN, LaneWorld, cut, left  # noqa: E402 - or it would fail

__all__ = ["KEYS", "LOOPBACK", "MTU_BYTES", "VPN", "LaneWorld", "cut", "left"]
