"""A LAN of 1,500 bytes behind a path of 1,280, and nobody has configured anything for it.

What holds: all of it between two nodes of this design, also where the router says nothing. With WireGuard's own
programs at the far end what we send fits, and TCP both ways; what they send by UDP is cut by their kernel once that has
heard the router. Where no router says anything, such datagrams are lost, and TCP needs an operator who sets `vpn.mtu`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.flows import HOST_TO_VPN, LAN_TO_VPN
from lab.namespace import Namespace
from lab.other_end import OtherEnd
from lab.second import SecondInstance
from lab.topology import TAP0, TUNNELLED, Lab
from lab.wireguard import FarEnd
from tests.lab.far_end import peer, run, until
from trials.cables.router import Router, join_by_router

pytestmark = pytest.mark.lab

NARROW = 1280 - 60
THERE_AND_BACK = ("4000000", "4000000")
ENDS = {"another instance": SecondInstance, "WireGuard": FarEnd}


@pytest.fixture
def router(wired: Lab) -> Iterator[Router]:
    """A path of 1,280 bytes, of which no kernel knows."""
    router = join_by_router(wired, mtu_bytes=1280)
    for name in ("lan3", "lan4", "gw", "exit"):
        wired.namespaces[name].ip("route flush cache")
    yield router
    wired.part_outside()


@pytest.fixture
def end(wired: Lab, router: Router, request: pytest.FixtureRequest) -> Iterator[OtherEnd]:
    """The far end, started, and no gateway before and after."""
    found = ENDS[request.param](wired)
    found.start()
    yield found
    wired.remove_gateway()
    found.stop()
    (wired.folder / "tunnel.json").unlink(missing_ok=True)


def with_both(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("end", names or tuple(ENDS), indirect=True)


def fragments_made(namespace: Namespace) -> int:
    """By its kernel, ever."""
    lines = namespace.run("cat", "/proc/net/snmp").splitlines()
    words, numbers = (line.split()[1:] for line in lines if line.startswith("Ip:"))
    return int(dict(zip(words, numbers, strict=True))["FragCreates"])


def assert_everything_fits(lab: Lab, router: Router) -> None:
    before = fragments_made(lab.namespaces["gw"])
    for flow in (LAN_TO_VPN, HOST_TO_VPN):
        answer = lab.client(flow.client, "transfer", flow.remote, *THERE_AND_BACK)
        assert answer["ok"], (flow.name, answer)
        until(lambda flow=flow: lab.client(flow.client, "ask", flow.remote, "1400")["ok"], f"{flow.name}: 1,400 bytes")
        answer = lab.client(flow.client, "ask", flow.remote, "1400", "5")
        assert answer["ok"], (flow.name, answer)
        found = lab.client(flow.client, "discover", flow.remote)
        assert found["mtu"] == NARROW, (flow.name, found)
        if flow is LAN_TO_VPN:  # the host's own kernel cuts what is too long for tun0
            assert fragments_made(lab.namespaces["gw"]) == before, "nothing that was sealed was cut"
    assert fragments_made(router.namespace) == 0
    refused = lab.client("lan3", "ping", TUNNELLED, "64", "1472")
    assert (refused["type"], refused["code"], refused["mtu"], refused["from"]) == (3, 4, NARROW, TAP0)
    assert lab.client("lan4", "ping", TUNNELLED, "64", str(NARROW - 28))["ok"]


@with_both()
def test_w28_q3_a_lan_of_1500_bytes_behind_a_path_of_1280(wired: Lab, router: Router, end: OtherEnd) -> None:
    """W28, Q3, G29, Q6: TCP both ways, UDP with and without DF, and ping -s 1472 gets the number."""
    run(wired, end.configuration())
    assert wired.client("lan3", "ping", TUNNELLED)["ok"]
    until(lambda: peer(wired)["mtu"] == NARROW, "the router has told")
    assert_everything_fits(wired, router)
    state = "confirmed" if isinstance(end, SecondInstance) else "lowered"
    until(lambda: peer(wired)["mtu_state"] == state, "a node answers a probe of that size")
    assert peer(wired)["mtu"] == NARROW
    assert wired.ask("stats")["drops"]["tunnel.signal"] == 0


@with_both("another instance")
def test_q6_a_path_of_1280_bytes_that_says_nothing(wired: Lab, router: Router, end: OtherEnd) -> None:
    """Q6: a black hole is found by probes, and both ends find their own direction of it."""
    router.swallow_icmp()
    run(wired, end.configuration())
    assert wired.client("lan3", "ping", TUNNELLED)["ok"]
    until(lambda: peer(wired)["mtu_state"] == "confirmed" and peer(wired)["mtu"] < 1420, "the search is over")
    assert peer(wired)["mtu"] == NARROW
    assert_everything_fits(wired, router)


@with_both()
def test_a_path_that_becomes_narrow_under_a_transfer(wired: Lab, router: Router, end: OtherEnd) -> None:
    router.set_mtu(1500)
    run(wired, end.configuration())
    assert wired.client("lan3", "ping", TUNNELLED)["ok"]
    words = ("-m", "lab.peers", "transfer", TUNNELLED, "40000000", "40000000")
    before = peer(wired)["tx_bytes"]
    running = wired.namespaces["lan3"].start_python(*words)
    try:
        until(lambda: peer(wired)["tx_bytes"] > before + 1_000_000, "the transfer is under way")
        assert peer(wired)["mtu"] == 1420
        router.set_mtu(1280)
        assert '"ok": true' in running.finish()
    finally:
        running.stop()
    assert peer(wired)["mtu"] == NARROW


@with_both("WireGuard")
def test_where_neither_router_nor_peer_says_anything_the_operator_can(
    wired: Lab, router: Router, end: OtherEnd
) -> None:
    """Q6: `vpn.mtu` is what both ends' TCP then keeps to; a multiple of 16, to which the far end pads."""
    router.swallow_icmp()
    run(wired, end.configuration().replace("mtu = 1420", f"mtu = {NARROW & ~15}"))
    for flow in (LAN_TO_VPN, HOST_TO_VPN):
        answer = wired.client(flow.client, "transfer", flow.remote, *THERE_AND_BACK)
        assert answer["ok"], (flow.name, answer)
