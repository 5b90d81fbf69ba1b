"""tap1 leases its address: a real daemon, a real DHCP server, real kernels behind both taps."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lab.process import CommandFailed
from lab.topology import CONFIGURATION, LEASED_TAP1, OFFLOADED, ROUTER, STATIC_TAP1, TUNNELLED, Lab
from tests.lab.dhcp_servers import FIRST, Server, needing
from tests.lab.far_end import until

pytestmark = pytest.mark.lab

LEASED = CONFIGURATION.replace(STATIC_TAP1, LEASED_TAP1)
NO_ADDRESS = dict.fromkeys(
    ("address", "prefix_length", "gateway", "server", "dns", "domain", "mtu", "obtained_s", "renew_s", "rebind_s")
)


@pytest.fixture(scope="module", autouse=True)
def _far_ends(bare_lab: Lab) -> None:
    needing("dnsmasq")
    bare_lab.serve()


@pytest.fixture
def server(bare_lab: Lab) -> Iterator[Server]:
    found = Server("dnsmasq", bare_lab.namespaces["isp"], bare_lab.folder)
    found.start()
    yield found
    found.stop()
    found.forget()


@pytest.fixture
def lab(bare_lab: Lab, server: Server) -> Iterator[Lab]:
    bare_lab.configure(LEASED)
    bare_lab.start_gateway()
    bare_lab.await_lease()
    yield bare_lab
    bare_lab.remove_gateway()
    bare_lab.socket_path.with_suffix(".lease").unlink(missing_ok=True)


def lease(lab: Lab) -> dict[str, Any]:
    found: dict[str, Any] = lab.ask("dhcp.show")["lease"]
    return found


def bridgectl(lab: Lab, *words: str, check: bool = True) -> str:
    command = [sys.executable, "-m", "bridgectl", "--socket", str(lab.socket_path), *words]
    return lab.namespaces["gw"].run(*command, check=check)


def seen_as(lab: Lab, remote: str = OFFLOADED) -> str:
    return str(lab.client("lan3", "ask", remote, "10")["seen_as"]).partition(":")[0]


def errors(lab: Lab) -> str:
    assert lab.gateway is not None
    return lab.gateway.errors()


def test_d17_the_address_of_dnsmasq_carries_what_is_offloaded(lab: Lab) -> None:
    told = json.loads(bridgectl(lab, "dhcp", "-j"))
    assert told["version"] == 1
    found = told["lease"]
    assert (found["port"], found["state"], found["address"], found["prefix_length"]) == ("tap1", "bound", FIRST, 24)
    assert (found["gateway"], found["server"], found["dns"], found["domain"]) == (
        ROUTER,
        ROUTER,
        [ROUTER],
        "isp.example",
    )
    assert found["mtu"] == 1500
    assert 0 <= found["obtained_s"] < found["renew_s"] < found["rebind_s"] < found["expires_s"] <= 120
    assert seen_as(lab) == FIRST
    assert f"tap1: lease bound {FIRST}" in errors(lab)
    assert FIRST in bridgectl(lab, "dhcp")


def test_d10_renew_asks_at_once_and_release_gives_the_address_back(lab: Lab, server: Server) -> None:
    renewed = json.loads(bridgectl(lab, "dhcp", "renew", "-j"))["lease"]
    assert (renewed["state"], renewed["address"]) == ("bound", FIRST)
    assert seen_as(lab) == FIRST
    released = json.loads(bridgectl(lab, "dhcp", "release", "-j"))["lease"]
    assert released["state"] == "init"
    assert {key: released[key] for key in NO_ADDRESS} == NO_ADDRESS
    assert not lab.client("lan3", "ask", OFFLOADED, "10")["ok"]
    assert seen_as(lab, TUNNELLED) == "192.168.192.210"
    assert {link["on"] for link in lab.ask("alias.show")["links"]} == {"vpn"}
    until(lambda: f"DHCPRELEASE(eth0) {FIRST}" in server.errors(), "dnsmasq has heard of it")
    assert json.loads(bridgectl(lab, "dhcp", "renew", "-j"))["lease"]["address"] == FIRST
    assert seen_as(lab) == FIRST


def test_d11_the_lease_hook_hears_of_every_change(bare_lab: Lab, server: Server) -> None:
    said = bare_lab.folder / "said"
    hook = bare_lab.folder / "lease.sh"
    hook.write_text(f'#!/bin/sh\necho "$LEASE_CHANGE $TAP1_ADDRESS $TAP1_DNS $TAP1_DOMAIN" >>{said}\n')
    hook.chmod(0o755)
    bare_lab.configure(LEASED + '[hooks]\nlease = "lease.sh"\n')
    try:
        bare_lab.start_gateway()
        bare_lab.await_lease()
        bridgectl(bare_lab, "dhcp", "renew")
        bridgectl(bare_lab, "dhcp", "release")
        wanted = [f"bound {FIRST} {ROUTER} isp.example", f"renewed {FIRST} {ROUTER} isp.example", "released   "]
        until(lambda: said.exists() and said.read_text().splitlines() == wanted, "the hook has run three times")
    finally:
        bare_lab.remove_gateway()


def test_d10_renew_fails_where_no_server_answers(lab: Lab, server: Server) -> None:
    server.stop()
    with pytest.raises(CommandFailed, match=r"exit code 1\n.*no server has answered within 10 s"):
        bridgectl(lab, "dhcp", "renew")
    assert seen_as(lab) == FIRST, "the lease lasts on"


def test_d12_after_kill_9_the_same_address_is_in_use_and_links_live_on(lab: Lab) -> None:
    before = [link["outside"] for link in lab.ask("alias.show")["links"]]
    assert seen_as(lab) == FIRST
    assert lab.gateway is not None
    lab.gateway.signal(signal.SIGKILL)
    lab.gateway.wait()
    lab.start_gateway()
    found = lab.await_lease()
    assert found["address"] == FIRST
    assert "links go on from before the restart" in errors(lab)
    assert set(before) <= {link["outside"] for link in lab.ask("alias.show")["links"]}
    assert seen_as(lab) == FIRST
    assert "discover" not in errors(lab)


def test_d12_a_lease_of_another_network_gives_way_to_a_new_one(lab: Lab, server: Server) -> None:
    assert lab.stop_gateway() == 0
    server.stop()
    server.forget()
    server.start(first="192.168.1.80", last="192.168.1.89")
    lab.start_gateway()
    found = lab.await_lease()
    assert found["address"] == "192.168.1.80"
    assert f"tap1: lease nak {FIRST}" in errors(lab)
    assert seen_as(lab) == "192.168.1.80"


def test_d9_a_renewal_that_is_refused_brings_another_address_and_the_tunnel_does_not_notice(
    lab: Lab, server: Server
) -> None:
    assert seen_as(lab, TUNNELLED) == "192.168.192.210"
    tunnelled = [link["outside"] for link in lab.ask("alias.show")["links"] if link["on"] == "vpn"]
    server.stop()
    server.forget()
    server.start(first="192.168.1.80", last="192.168.1.89")
    until(lambda: server.is_running, "dnsmasq serves its other pool")
    bridgectl(lab, "dhcp", "renew")
    assert lab.await_lease()["address"] == "192.168.1.80"
    assert seen_as(lab) == "192.168.1.80"
    links = lab.ask("alias.show")["links"]
    assert [link["outside"] for link in links if link["on"] == "vpn"] == tunnelled
    assert not [link for link in links if link["outside"].startswith(f"{FIRST}:")]


def test_d7_an_address_that_another_host_has_is_declined(bare_lab: Lab, server: Server) -> None:
    isp = bare_lab.namespaces["isp"]
    isp.ip(f"addr add {FIRST}/32 dev lo")  # its kernel answers ARP for it on eth0
    try:
        bare_lab.configure(LEASED)
        bare_lab.start_gateway()
        until(lambda: "lease declined" in errors(bare_lab), "the address is given back")
        until(lambda: (lease(bare_lab)["address"] or FIRST) != FIRST, "another one is leased")
        assert seen_as(bare_lab) == lease(bare_lab)["address"]
    finally:
        isp.ip(f"addr del {FIRST}/32 dev lo")
        bare_lab.remove_gateway()
        bare_lab.socket_path.with_suffix(".lease").unlink(missing_ok=True)


def make_bridge(lab: Lab) -> None:
    """As a script of the machine makes br1 again: it knows the NIC, and no tap."""
    gw = lab.namespaces["gw"]
    gw.ip("link del br1")
    gw.ip("link add br1 type bridge")
    gw.ip("link set br1 up")
    gw.ip("link set isp master br1 up")


def renewals(lab: Lab) -> int:
    return errors(lab).count("tap1: lease renewed")


def test_d15_a_bridge_that_is_made_again_has_the_lease_asked_for_at_once(lab: Lab) -> None:
    before = renewals(lab)
    make_bridge(lab)
    until(lambda: renewals(lab) > before, "the server has confirmed the address")
    assert seen_as(lab) == FIRST


def test_d15_a_carrier_that_comes_back_has_the_lease_asked_for_at_once(lab: Lab) -> None:
    before = renewals(lab)
    isp = lab.namespaces["isp"]
    isp.ip("link set eth0 down")
    isp.ip("link set eth0 up")
    until(lambda: renewals(lab) > before, "the server has confirmed the address")
    assert seen_as(lab) == FIRST


def test_d15_behind_a_bridge_that_was_made_again_may_be_another_network(lab: Lab, server: Server) -> None:
    server.stop()
    server.forget()
    server.start(first="192.168.1.80", last="192.168.1.89")
    until(lambda: "DHCP, IP range" in server.errors(), "dnsmasq serves its other pool")
    make_bridge(lab)
    until(lambda: lease(lab)["address"] == "192.168.1.80", "the new network's address")
    assert seen_as(lab) == "192.168.1.80"
