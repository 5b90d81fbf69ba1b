"""Row G34: `tun0.default_route` with strict or loose `rp_filter`: the tunnel comes up, and nothing is left."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.ports.host_routes import PROTOCOL, sweep
from bridge.ports.namespace import entered
from lab.other_end import FAR_PORT
from lab.outside import OUTER_EXIT
from lab.topology import TUNNELLED, Lab
from lab.wireguard import FarEnd
from tests.lab.far_end import run, until

pytestmark = pytest.mark.lab
ENDPOINT, MOVED = "203.0.113.10", "203.0.113.11"


@pytest.fixture(params=[1, 2])
def strict(wired: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The gateway's host with this `rp_filter` on every device, and a default route to the far end's network."""
    gw, exit_ = wired.namespaces["gw"], wired.namespaces["exit"]
    gw.ip(f"route add default via {OUTER_EXIT} dev outer")
    for address in (ENDPOINT, MOVED):
        exit_.ip(f"addr add {address}/32 dev lo")
    set_filter(request.param)
    yield wired
    wired.remove_gateway()
    set_filter(0)
    for address in (ENDPOINT, MOVED):
        exit_.ip(f"addr del {address}/32 dev lo")
    gw.ip("route del default")


def set_filter(value: int) -> None:
    with entered("gw"):
        for path in Path("/proc/sys/net/ipv4/conf").glob("*/rp_filter"):
            path.write_text(str(value))


def way_to(lab: Lab, address: str) -> str:
    return lab.namespaces["gw"].ip(f"route get {address}").split("uid")[0].split("src")[0].strip()


def ours(lab: Lab) -> str:
    return lab.namespaces["gw"].ip(f"route show proto {PROTOCOL}")


def test_g34_the_handshake_passes_and_the_endpoint_keeps_its_way(strict: Lab, far: FarEnd) -> None:
    before = strict.namespaces["gw"].ip("route")
    far.start()
    run(strict, far.configuration(endpoint=f"{ENDPOINT}:{FAR_PORT}"))
    for who in ("lan3", "gw"):
        assert strict.client(who, "transfer", TUNNELLED, "1000000", "1000000")["ok"]
    assert way_to(strict, ENDPOINT) == f"{ENDPOINT} via {OUTER_EXIT} dev outer"
    assert way_to(strict, MOVED).startswith(f"{MOVED} dev tun0")
    strict.configure(far.configuration(endpoint=f"{MOVED}:{FAR_PORT}"))
    strict.ask("reload")
    until(lambda: way_to(strict, MOVED) == f"{MOVED} via {OUTER_EXIT} dev outer", "the route follows the endpoint")
    assert strict.client("lan3", "ping", TUNNELLED)["ok"]
    assert ENDPOINT not in ours(strict)
    assert strict.stop_gateway() == 0
    assert strict.namespaces["gw"].ip("route") == before


def test_g34_a_device_that_was_down_gets_the_route_back_and_a_kill_leaves_none(strict: Lab, far: FarEnd) -> None:
    gw = strict.namespaces["gw"]
    before = gw.ip("route")
    far.start()
    run(strict, far.configuration(endpoint=f"{ENDPOINT}:{FAR_PORT}"))
    until(lambda: ENDPOINT in ours(strict), "there is a host route")
    gw.ip("link set outer down")
    assert ours(strict) == ""
    gw.ip("link set outer up")
    gw.ip(f"route add default via {OUTER_EXIT} dev outer")
    until(lambda: ENDPOINT in ours(strict), "the host route is back")
    assert strict.gateway is not None
    strict.gateway.signal(signal.SIGKILL)
    strict.gateway.wait()
    until(lambda: gw.ip("route") == before, "nothing is left")


def test_g34_routes_that_outlived_everything_go_with_the_next_start(strict: Lab) -> None:
    gw = strict.namespaces["gw"]
    before = gw.ip("route")
    gw.ip(f"route add {ENDPOINT}/32 via {OUTER_EXIT} dev outer proto {PROTOCOL}")
    gw.ip(f"route add {MOVED}/32 via {OUTER_EXIT} dev outer proto static")
    with entered("gw"):
        sweep()
    assert ENDPOINT not in gw.ip("route")
    assert MOVED in gw.ip("route")
    gw.ip(f"route del {MOVED}/32")
    assert gw.ip("route") == before
