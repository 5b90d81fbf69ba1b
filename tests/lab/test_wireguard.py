"""The tunnel against wireguard-go, with real kernels on all sides and a cable of its own for the sealed packets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from lab.flows import FLOWS, HOST_TO_VPN, LAN_TO_VPN, observe
from lab.other_end import FAR_PORT
from lab.outside import OUTER_EXIT
from lab.topology import TAP0, TUNNELLED, Lab
from lab.wireguard import FarEnd
from tests.compiled import compiled_cipher
from tests.lab.far_end import DEADLINE_S, peer, run, until

pytestmark = pytest.mark.lab

STOP_S = 2.0
THROUGH_THE_TUNNEL = pytest.mark.parametrize("flow", [LAN_TO_VPN, HOST_TO_VPN], ids=lambda flow: flow.name)


def assert_it_carries_everything(lab: Lab) -> None:
    for flow in FLOWS:
        assert lab.client(flow.client, "ping", flow.remote)["ok"], flow.name
        for size in ("1", "1400", "4000"):
            answer = lab.client(flow.client, "ask", flow.remote, size, "3")
            assert answer["ok"], (flow.name, answer)
            assert answer["seen_as"].partition(":")[0] == flow.seen_as
    for flow in (LAN_TO_VPN, HOST_TO_VPN):
        answer = lab.client(flow.client, "transfer", flow.remote, "20000000", "20000000")
        assert answer["ok"], (flow.name, answer)
        assert answer["seen_as"].partition(":")[0] == flow.seen_as


@pytest.mark.parametrize("psk", [False, True], ids=["without PSK", "with PSK"])
def test_we_call_and_everything_passes_both_ways(wired: Lab, far: FarEnd, psk: bool) -> None:
    far.start(psk=psk)
    run(wired, far.configuration(psk=psk))
    assert_it_carries_everything(wired)
    told = peer(wired)
    assert told["endpoint"] == f"{OUTER_EXIT}:{FAR_PORT}"
    assert told["latest_handshake_s"] < DEADLINE_S
    assert told["state"] == "up"
    assert min(told["rx_bytes"], told["tx_bytes"]) > 40_000_000


@pytest.mark.parametrize("forced", [True, False], ids=["plain", "what there is"])
def test_it_carries_the_same_with_either_cipher_and_says_which_is_in_use(wired: Lab, far: FarEnd, forced: bool) -> None:
    far.start()
    wired.configure(far.configuration().replace("[tunnel]", "[tunnel]\nthreads = 3"))
    gateway = wired.start_gateway({"TAPBRIDGE_FAST": "0" if forced else "1"})
    assert_it_carries_everything(wired)
    if not forced:
        compiled_cipher()
    used = wired.ask("stats")["fast_path"]
    assert (used["cipher"], used["threads"], used["lanes"]) == (("plain", 1, 0) if forced else ("compiled", 3, 1))
    names = [path.read_text() for path in Path(f"/proc/{gateway.pid}/task").glob("*/comm")]
    assert len(names) == used["threads"]
    before = time.monotonic()
    assert wired.stop_gateway() == 0
    assert time.monotonic() - before < STOP_S


@pytest.mark.parametrize("psk", [False, True], ids=["without PSK", "with PSK"])
def test_a_peer_without_an_endpoint_is_unreachable_until_it_calls(wired: Lab, far: FarEnd, psk: bool) -> None:
    run(wired, far.configuration(endpoint=None, psk=psk))
    refused = wired.client("lan3", "ping", TUNNELLED)
    assert (refused["type"], refused["code"], refused["from"]) == (3, 1, TAP0)
    assert peer(wired)["endpoint"] is None
    assert peer(wired)["latest_handshake_s"] is None
    far.call(psk=psk)
    until(lambda: peer(wired)["state"] == "up", "the far end has called")
    assert_it_carries_everything(wired)
    assert peer(wired)["endpoint"] == f"{OUTER_EXIT}:{FAR_PORT}"


def test_a_wrong_preshared_key_is_no_session(wired: Lab, far: FarEnd) -> None:
    far.call(psk=True)
    run(wired, far.configuration(endpoint=None))
    until(lambda: wired.ask("stats")["drops"]["tunnel.handshake"] > 0 or peer(wired)["rx_bytes"] > 0, "it has called")
    assert peer(wired)["latest_handshake_s"] is None
    assert wired.client("lan3", "ping", TUNNELLED)["ok"] is False


@THROUGH_THE_TUNNEL
def test_every_hop_has_the_addresses_of_the_design(wired: Lab, far: FarEnd, flow: Any) -> None:
    far.start()
    run(wired, far.configuration())
    answer, hops = observe(wired, flow)
    assert answer["ok"]
    assert hops == flow.hops


def test_the_far_end_may_move_to_another_address_while_traffic_flows(wired: Lab, far: FarEnd) -> None:
    far.call()
    run(wired, far.configuration(endpoint=None))
    until(lambda: peer(wired)["state"] == "up", "the far end has called")
    exit_ = wired.namespaces["exit"]
    running = wired.namespaces["lan3"].start_python("-m", "lab.peers", "transfer", TUNNELLED, "40000000", "40000000")
    try:
        before = peer(wired)["rx_bytes"]
        until(lambda: peer(wired)["rx_bytes"] > before + 100_000, "the transfer is under way")
        exit_.ip("addr add 198.51.100.77/24 dev outer")
        exit_.ip(f"addr del {OUTER_EXIT}/24 dev outer")
        exit_.ip("addr replace 198.51.100.77/24 dev outer")
        far.listen_on(FAR_PORT + 1)
        until(lambda: peer(wired)["endpoint"] == f"198.51.100.77:{FAR_PORT + 1}", "it is heard from its new address")
        running.finish()
    finally:
        running.stop()
        exit_.ip(f"addr add {OUTER_EXIT}/24 dev outer")
        exit_.ip("addr del 198.51.100.77/24 dev outer")
        exit_.ip(f"addr replace {OUTER_EXIT}/24 dev outer")


def test_reloads_under_load_disturb_no_session(wired: Lab, far: FarEnd) -> None:
    far.start()
    run(wired, far.configuration())
    assert wired.client("lan3", "ping", TUNNELLED)["ok"]
    running = wired.namespaces["lan3"].start_python("-m", "lab.peers", "transfer", TUNNELLED, "60000000", "60000000")
    try:
        before = peer(wired)["rx_bytes"]
        until(lambda: peer(wired)["rx_bytes"] > before + 100_000, "the transfer is under way")
        for _ in range(20):
            wired.ask("reload")
        assert running.document()["ok"]
    finally:
        running.stop()
    told = wired.ask("stats")
    assert not any(told["drops"][f"tunnel.{reason}"] for reason in ("authentication", "replay", "unknown_index"))
    assert told["fast_path"]["lanes"] == (1 if told["fast_path"]["cipher"] == "compiled" else 0)


def test_a_far_end_that_starts_anew_is_called_again_while_traffic_flows(wired: Lab, far: FarEnd) -> None:
    far.start()
    run(wired, far.configuration())
    running = wired.namespaces["lan3"].start_python("-m", "lab.peers", "stream", TUNNELLED, "200", "5000", "200")
    try:
        until(lambda: peer(wired)["rx_bytes"] > 10_000, "traffic flows")
        far.stop()
        far.start()
        before = peer(wired)["rx_bytes"]
        until(lambda: peer(wired)["rx_bytes"] > before + 10_000, "a new session after 15 s without an answer")
        told = running.document()
    finally:
        running.stop()
    assert told["last"] == 4999
    assert told["longest_gap"] < 200 * 20, "it was called as soon as 15 s had passed"
    assert told["answered"] >= 5000 - told["longest_gap"] - 5, "nothing was lost but while the far end knew no session"
    assert wired.client("lan3", "transfer", TUNNELLED, "1000000", "1000000")["ok"]


def test_a_gateway_that_starts_anew_goes_on_with_its_stamps(wired: Lab, far: FarEnd) -> None:
    far.start()
    run(wired, far.configuration())
    running = wired.namespaces["lan3"].start_python("-m", "lab.peers", "stream", TUNNELLED, "200", "1600", "200")
    try:
        until(lambda: peer(wired)["rx_bytes"] > 10_000, "traffic flows")
        stamps = (wired.folder / "tunnel.json").read_text()
        assert far.far.public in stamps
        assert wired.stop_gateway() == 0
        wired.start_gateway()
        told = running.document()
    finally:
        running.stop()
    assert told["last"] == 1599
    assert told["longest_gap"] < 200 * 5, "it is believed at once"
    assert (wired.folder / "tunnel.json").read_text() != stamps


def test_a_persistent_keepalive_calls_and_keeps_on_without_any_traffic(wired: Lab, far: FarEnd) -> None:
    far.start()
    run(wired, far.configuration(keepalive=1))
    until(lambda: peer(wired)["state"] == "up", "it has called without being asked")
    before = peer(wired)["tx_bytes"]
    until(lambda: peer(wired)["tx_bytes"] >= before + 3 * 32, "three keepalives")
    assert peer(wired)["persistent_keepalive_s"] == 1
    assert int(far.shown("transfer").split("\t")[0]) > 0


def test_with_the_default_route_in_tun0_sealed_packets_still_leave_by_the_kernel_s_own(wired: Lab, far: FarEnd) -> None:
    gw, exit_ = wired.namespaces["gw"], wired.namespaces["exit"]
    gw.ip(f"route add default via {OUTER_EXIT} dev outer")
    exit_.ip("addr add 203.0.113.10/32 dev lo")
    try:
        far.start()
        run(wired, far.configuration(endpoint=f"203.0.113.10:{FAR_PORT}"))
        assert "128.0.0.0/1 dev tun0" in gw.ip("route")
        for flow in (LAN_TO_VPN, HOST_TO_VPN):
            assert wired.client(flow.client, "transfer", flow.remote, "1000000", "1000000")["ok"]
    finally:
        gw.ip("route del default")
        exit_.ip("addr del 203.0.113.10/32 dev lo")


SECOND = """
[peer.sg]
public_key = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
allowed_ips = ["9.9.9.0/24"]
"""


def test_a_reload_adds_and_removes_peers_and_leaves_sessions_alone(wired: Lab, far: FarEnd) -> None:
    far.start()
    run(wired, far.configuration())
    assert wired.client("lan3", "ping", TUNNELLED)["ok"]
    received = int(far.shown("transfer").split("\t")[0])
    handshake = far.shown("latest-handshakes")
    wired.configure(far.configuration() + SECOND)
    wired.ask("reload")
    assert [one["name"] for one in wired.ask("peers")["peers"]] == ["hk", "sg"]
    assert wired.client("lan3", "ping", "9.9.9.9")["code"] == 1
    wired.configure(far.configuration())
    wired.ask("reload")
    assert [one["name"] for one in wired.ask("peers")["peers"]] == ["hk"]
    assert wired.client("lan3", "ping", TUNNELLED)["ok"]
    assert far.shown("latest-handshakes") == handshake
    assert int(far.shown("transfer").split("\t")[0]) > received


def test_a_port_that_is_taken_and_a_state_file_that_cannot_be_written_are_told(wired: Lab, far: FarEnd) -> None:
    far.start()
    (wired.folder / "nothing").write_text("")
    gateway = run(wired, far.configuration().replace('"tunnel.json"', '"nothing/tunnel.json"'))
    assert wired.client("lan3", "ping", TUNNELLED)["ok"]
    assert "tunnel.json" in gateway.errors()
    other = far.configuration().replace('"control.sock"', '"other.sock"')
    wired.configure(other)
    second = wired.namespaces["gw"].start_python("-m", "bridgectl", "run", "-c", str(wired.config_path))
    try:
        assert second.wait() == 1
        assert "UDP port 51820 cannot be had" in second.errors()
    finally:
        second.stop()
