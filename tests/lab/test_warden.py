"""The warden puts right what others undo while the gateway runs, and leaves what an operator does on purpose."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.topology import CONFIGURATION, OFFLOADED, TAP1, TUNNELLED, Lab
from tests.lab.far_end import until
from tests.lab.test_keys_stay_hidden import family
from tests.lab.test_privileges import warden_of

pytestmark = pytest.mark.lab

HALVES = ("0.0.0.0/1 dev tun0", "128.0.0.0/1 dev tun0")


@pytest.fixture(scope="module", autouse=True)
def _far_ends(bare_lab: Lab) -> None:
    bare_lab.serve()


@pytest.fixture
def running(bare_lab: Lab) -> Iterator[Lab]:
    bare_lab.configure(CONFIGURATION)
    bare_lab.start_gateway()
    yield bare_lab
    bare_lab.remove_gateway()


def shown(lab: Lab, device: str) -> str:
    return lab.namespaces["gw"].ip(f"link show {device}")


def make_bridge(lab: Lab, ports: str = "isp") -> None:
    """As a script of the machine makes br1 again: it knows the NIC, and no tap."""
    gw = lab.namespaces["gw"]
    gw.ip("link add br1 type bridge")
    gw.ip("link set br1 up")
    gw.ip(f"link set {ports} master br1 up")


def test_a_bridge_that_is_made_again_gets_its_tap_back(running: Lab) -> None:
    assert running.client("lan3", "ping", OFFLOADED)["ok"]
    for _ in range(3):
        running.namespaces["gw"].ip("link del br1")
        make_bridge(running)
        until(lambda: "master br1" in shown(running, "tap1"), "the tap is back")
        assert running.client("lan3", "ask", OFFLOADED, "10")["seen_as"].startswith(f"{TAP1}:")
    assert running.gateway is not None
    assert "br1 was made again: tap1 is back in it" in running.gateway.errors()


def test_a_tap_that_went_down_with_its_bridge_is_up_again(running: Lab) -> None:
    """As ifdown and ifup of ifupdown do."""
    gw = running.namespaces["gw"]
    gw.ip("link set tap1 nomaster")
    gw.ip("link set tap1 down")
    gw.ip("link del br1")
    make_bridge(running)
    until(lambda: "master br1" in shown(running, "tap1") and ",UP" in shown(running, "tap1"), "the tap is back and up")
    assert running.client("lan3", "ping", OFFLOADED)["ok"]


def test_what_is_set_by_hand_stays(running: Lab) -> None:
    gw = running.namespaces["gw"]
    gw.ip("link set tap1 down")
    gw.ip("link set tap0 nomaster")
    gw.ip("route del 0.0.0.0/1 dev tun0")
    gw.ip("link del br1")  # what comes last is mended: by then the warden has heard of all the rest
    make_bridge(running)
    until(lambda: "master br1" in shown(running, "tap1"), "the warden has heard it all")
    assert "master" not in shown(running, "tap0")
    assert HALVES[0] not in gw.ip("route")
    gw.ip("link set tap0 master br0")


def test_a_tap_that_is_down_is_left_down(running: Lab) -> None:
    gw = running.namespaces["gw"]
    gw.ip("link set tap0 down")
    gw.ip("link set tun0 down")
    gw.ip("link set tun0 up")
    until(lambda: all(half in gw.ip("route") for half in HALVES), "the warden has heard it all")
    assert "UP" not in shown(running, "tap0").partition(">")[0].split("<")[1].split(",")
    gw.ip("link set tap0 up")
    assert running.client("lan3", "ping", OFFLOADED)["ok"]


def test_a_tun0_that_was_down_has_its_default_routes_again(running: Lab) -> None:
    gw = running.namespaces["gw"]
    for _ in range(3):
        gw.ip("link set tun0 down")
        assert not any(half in gw.ip("route") for half in HALVES)
        gw.ip("link set tun0 up")
        until(lambda: all(half in gw.ip("route") for half in HALVES), "the routes are back")
    assert running.client("gw", "ping", TUNNELLED)["ok"]
    assert running.stop_gateway() == 0
    assert "dev tun0" not in gw.ip("route")


def test_it_ends_with_a_gateway_that_is_killed(running: Lab) -> None:
    assert running.gateway is not None
    warden = warden_of(running.gateway)
    running.gateway.signal(signal.SIGKILL)
    running.gateway.wait()
    until(lambda: not Path(f"/proc/{warden}").exists(), "the warden is gone")


def test_a_gateway_whose_warden_is_killed_goes_on_and_says_so(running: Lab) -> None:
    assert running.gateway is not None
    gateway = running.gateway
    warden = warden_of(gateway)
    Path(f"/proc/{warden}/oom_score_adj").read_text()
    running.namespaces["gw"].run("kill", "-KILL", str(warden))
    until(lambda: "the warden has ended" in gateway.errors(), "it is told")
    assert running.client("lan3", "ping", OFFLOADED)["ok"]
    assert running.stop_gateway() == 0


def test_there_is_none_where_nothing_needs_it(bare_lab: Lab) -> None:
    text = CONFIGURATION.replace('bridge = "br0"\n', "").replace('bridge = "br1"\n', "")
    bare_lab.configure(text.replace("default_route = true\n", "") + '[process]\nuser = "root"\n')
    gateway = bare_lab.start_gateway()
    until(lambda: family(gateway.pid) == [gateway.pid], "the process that made the devices has ended")
    bare_lab.remove_gateway()


def test_it_holds_no_device_and_no_socket_of_the_gateway_s(running: Lab) -> None:
    assert running.gateway is not None
    held = [str(path.readlink()) for path in Path(f"/proc/{warden_of(running.gateway)}/fd").iterdir()]
    assert not any("tun" in name or "control" in name for name in held)
    assert sum(name.startswith("socket:") for name in held) == 5, held  # to the gateway, and four of rtnetlink
