"""The four packet flows of the design, with real kernels on all sides."""

from __future__ import annotations

import pytest

from lab.flows import FLOWS, HOST_TO_VPN, LAN_TO_OFFLOAD, LAN_TO_VPN, PacketFlow, observe
from lab.topology import HOSTS, TAP0, Lab

pytestmark = pytest.mark.lab

EACH_FLOW = pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)


@EACH_FLOW
def test_every_hop_has_the_addresses_of_the_design(lab: Lab, flow: PacketFlow) -> None:
    answer, hops = observe(lab, flow)
    assert answer["ok"]
    assert hops == flow.hops


@EACH_FLOW
@pytest.mark.parametrize("size", [1, 1400, 4000, 60_000], ids=lambda size: f"{size}B")
def test_datagrams_come_back_whole_also_in_fragments(lab: Lab, flow: PacketFlow, size: int) -> None:
    answer = lab.client(flow.client, "ask", flow.remote, str(size), "3")
    assert answer["ok"], answer
    assert answer["seen_as"].partition(":")[0] == flow.seen_as


@EACH_FLOW
def test_tcp_carries_both_directions_whole(lab: Lab, flow: PacketFlow) -> None:
    answer = lab.client(flow.client, "transfer", flow.remote, "20000000", "20000000")
    assert answer["ok"], answer
    assert answer["seen_as"].partition(":")[0] == flow.seen_as


@EACH_FLOW
def test_the_first_hop_names_itself_when_the_time_to_live_runs_out(lab: Lab, flow: PacketFlow) -> None:
    answer = lab.client(flow.client, "ping", flow.remote, "1")
    assert (answer["type"], answer["code"], answer["from"]) == (11, 0, TAP0)
    assert lab.client(flow.client, "ping", flow.remote, "2")["ok"]


def test_a_packet_too_large_for_the_tunnel_is_told_the_mtu_and_the_path_then_works(lab: Lab) -> None:
    answer = lab.client("lan3", "ping", LAN_TO_VPN.remote, "64", "1472")
    assert (answer["type"], answer["code"], answer["from"]) == (3, 4, TAP0)
    assert lab.client("lan3", "ping", LAN_TO_OFFLOAD.remote, "64", "1472")["ok"]


@pytest.mark.parametrize("flow", [LAN_TO_VPN, LAN_TO_OFFLOAD, HOST_TO_VPN], ids=lambda flow: flow.name)
def test_a_closed_port_answers_through_the_gateway(lab: Lab, flow: PacketFlow) -> None:
    answer = lab.client(flow.client, "knock", flow.remote, "9")
    assert answer == {"ok": True, "tcp": "refused", "udp": "refused"}


def test_two_hosts_share_the_alias_address_and_neither_sees_the_other_s_traffic(lab: Lab) -> None:
    seen = {name: lab.client(name, "ask", LAN_TO_VPN.remote, "100")["seen_as"] for name in HOSTS}
    assert len(set(seen.values())) == len(HOSTS)
    assert {text.partition(":")[0] for text in seen.values()} == {LAN_TO_VPN.seen_as}


def test_the_kernel_never_answers_for_the_gateway_s_addresses(lab: Lab) -> None:
    lab.client("lan3", "ping", TAP0)
    lan, router = lab.namespaces["lan3"].ip("neigh"), lab.namespaces["isp"].ip("neigh")
    ports = lab.namespaces["gw"].ip("-br link")
    macs = {line.split()[0]: line.split()[2] for line in ports.splitlines()}
    answered = {line.split()[0]: line.split()[4] for line in (lan + router).splitlines() if "lladdr" in line}
    assert answered[TAP0].startswith("02:")
    assert answered[LAN_TO_OFFLOAD.seen_as].startswith("02:")
    assert not set(answered.values()) & {macs["tap0"], macs["tap1"]}
    assert macs["br0"] != macs["tap0"]
    assert TAP0 not in lab.namespaces["gw"].ip("addr")


def test_nothing_was_dropped_for_a_reason_of_ours(lab: Lab) -> None:
    """Runs last: after all the traffic above, what is counted is what the tests provoked."""
    provoked = {"ip.ttl", "ip.too_big", "ip.martian_source", "ip.multicast", "fragment.duplicate"}
    drops = {reason: number for reason, number in lab.ask("stats")["drops"].items() if number}
    assert set(drops) <= provoked
    assert lab.gateway is not None
    assert "bug" not in lab.gateway.errors()
