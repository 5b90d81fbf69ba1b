"""Every flood of `make floods`, in short: bounded, counted, and the ordinary flows beside it go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bridge.control.metrics import MOST_CLIENTS as MOST_METRICS_CLIENTS
from bridge.control.server import MOST_CLIENTS
from lab.topology import Lab, topology
from tests.laboratory import needing_the_kernel
from trials.floods.run import FLOODS, WAYS, measure, serve

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

SECONDS, RATE = 0.6, 60_000
MOST_LOSS = 0.75
"""Of an established flow, more than it lost without the flood. Without policing a flood takes all but a few percent
where sender, gateway and both ends share two cores; what is policed, and whom it spares, tests/ports shows exactly."""
STARVED = {("errors", "tap1")}
"""Where the first answers to new flows share the walk with strangers of random addresses, who may take all of it."""
MEMORY_KIB = 48 * 1024
"""Links, sessions and ports at rest may take 40 MB of it (docs/bounds.md)."""
LOG_LINES = 40
DESCRIPTORS = 32
COUNTED = {
    "syn": {"walk.policed", "alias.host_limit"},
    "destinations": {"walk.policed", "arp.superseded"},
    "ports": {"walk.policed", "alias.host_limit"},
    "spoofed": {"walk.policed", "alias.table_full", "alias.no_port"},
    "strangers": {"walk.policed", "alias.table_full", "alias.no_port"},
    "arp": {"walk.policed", "arp.rate_limited"},
    "fragments": {"walk.policed", "fragment.store_full"},
    "unsolicited": {"alias.no_link"},
    "errors": {"walk.policed", "alias.quote", "alias.no_link"},
    "handshakes": {"tunnel.cookie_sent", "tunnel.source_limit", "tunnel.handshake"},
    "clients": set(),
}
"""What counts a flood, one of these at least."""


@pytest.fixture(scope="module")
def served() -> Iterator[Lab]:
    with needing_the_kernel(), topology() as lab, ExitStack() as stack:
        serve(lab, stack)
        yield lab


@pytest.mark.parametrize("name", FLOODS)
def test_ordinary_flows_go_on_beside_a_flood_and_nothing_grows(served: Lab, name: str) -> None:
    """F5, A27, C1, C4, W24: each flood by itself, against a gateway of its own."""
    told = measure(served, FLOODS[name], SECONDS, RATE, tcp=False)
    for way in WAYS:
        quiet, flooded = told["quiet"][way], told["flooded"][way]
        assert flooded["loss"] <= quiet["loss"] + MOST_LOSS, told
        assert flooded["fresh_loss"] < 1 or (name, way) in STARVED, told
    assert told["sent"] > 1000, told
    assert told["memory_kib"]["peak"] - told["memory_kib"]["before"] < MEMORY_KIB, told
    assert "walk.fault" not in told["drops"], told
    assert told["log_lines"] < LOG_LINES, told
    if COUNTED[name]:
        assert not COUNTED[name].isdisjoint(told["drops"]), told
    if name == "clients":
        assert told["let_in"][0] <= MOST_CLIENTS, told
        assert told["descriptors"] < DESCRIPTORS + MOST_CLIENTS + MOST_METRICS_CLIENTS, told
    else:
        assert told["descriptors"] < DESCRIPTORS, told
