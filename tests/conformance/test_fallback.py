"""A node that is unreachable: its fallback takes new flows, and what began there stays there."""

from __future__ import annotations

import pytest

from bridge.control.answers import route
from bridge.control.answers.question import Subject
from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import ADDRESS_V, HOST, ICMP, IP, A, Scenario
from tests.conformance.packets import echo, error, only, raw_ip, tcp, udp
from wire.drop import Drop

WORLD, OTHER = "8.8.8.8", "9.9.9.9"
AT_DE, AT_JP = "vpn:de", "vpn:jp"
PEERS = """
[peer.hk]
allowed_ips = ["0.0.0.0/0"]
fallback = "de"
[peer.de]
allowed_ips = ["0.0.0.0/0"]
fallback = "jp"
[peer.jp]
allowed_ips = ["0.0.0.0/0"]
"""


@pytest.fixture
def nodes(make: MakeScenario) -> Scenario:
    s = make("V", PEERS)
    s.replayable = False  # which nodes can be reached stands in no capture
    return s


def lose(s: Scenario, *names: str) -> None:
    s.gateway.unreachable_nodes = set(names)


def goes(s: Scenario, source: str = A, port: int = 5000, destination: str = WORLD) -> str:
    return only(s.inject("U" if source == HOST else "L", udp((source, port), (destination, 53)))).port


@pytest.mark.parametrize("source", [A, HOST])
def test_new_flows_go_to_the_fallback_and_then_to_its_own(nodes: Scenario, source: str) -> None:
    assert goes(nodes, source) == "V"
    lose(nodes, "hk")
    assert goes(nodes, source) == AT_DE, "also those that were on hk"
    assert nodes.gateway.wanted_nodes == {"hk"}
    lose(nodes, "hk", "de")
    assert goes(nodes, source, 5001) == AT_JP
    assert goes(nodes, source) == AT_JP
    assert nodes.gateway.wanted_nodes == {"hk", "de"}
    lose(nodes, "hk", "de", "jp")
    told = only(nodes.inject("U" if source == HOST else "L", udp((source, 5000), (WORLD, 53))))
    assert (told.ip[ICMP].type, told.ip[ICMP].code) == (3, 1)
    assert nodes.dropped == Drop.ROUTE_NO_TUNNEL


def test_a_flow_that_began_on_the_fallback_stays_there_when_its_node_is_back(nodes: Scenario) -> None:
    lose(nodes, "hk")
    out = only(nodes.inject("L", udp((A, 5000), (WORLD, 53))))
    assert (out.port, out.ip.src) == (AT_DE, ADDRESS_V)
    lose(nodes)
    assert goes(nodes) == AT_DE
    assert only(nodes.inject(AT_DE, udp((WORLD, 53), (ADDRESS_V, out.ip.sport)))).port == "L"
    assert goes(nodes, port=5001) == "V", "a new flow"
    assert goes(nodes, destination=OTHER) == "V", "the same endpoint to another remote"
    lose(nodes, "jp")
    assert goes(nodes) == AT_DE


def test_a_flow_moves_only_when_its_node_becomes_unreachable(nodes: Scenario) -> None:
    assert goes(nodes) == "V"
    lose(nodes, "de", "jp")
    assert goes(nodes) == "V"
    lose(nodes, "hk")
    assert goes(nodes) == AT_DE
    lose(nodes, "de")
    assert goes(nodes) == "V", "the fallback is lost, and hk is there"
    lose(nodes)
    assert goes(nodes) == "V"


def test_a_silent_flow_is_forgotten_as_its_link_would_be(nodes: Scenario) -> None:
    lose(nodes, "hk")
    assert goes(nodes) == AT_DE
    assert only(nodes.inject("L", echo((A, 7), WORLD))).port == AT_DE
    assert only(nodes.inject("L", tcp((A, 6000), (WORLD, 443), "S"))).port == AT_DE
    lose(nodes)
    nodes.advance(59)
    assert only(nodes.inject("L", echo((A, 7), WORLD))).port == AT_DE
    nodes.advance(61)
    assert only(nodes.inject("L", echo((A, 7), WORLD))).port == "V"
    nodes.advance(170)
    assert goes(nodes) == AT_DE
    nodes.advance(301)
    assert goes(nodes) == "V"
    assert only(nodes.inject("L", tcp((A, 6000), (WORLD, 443), "A"))).port == AT_DE
    nodes.advance(7441)
    assert only(nodes.inject("L", tcp((A, 6000), (WORLD, 443), "A"))).port == "V"


def test_an_error_about_a_flow_goes_where_the_flow_is(nodes: Scenario) -> None:
    lose(nodes, "hk")
    mapped = only(nodes.inject("L", udp((A, 5000), (WORLD, 53)))).ip.sport
    lose(nodes)
    got = only(nodes.inject(AT_DE, udp((WORLD, 53), (ADDRESS_V, mapped))))
    assert only(nodes.inject("L", error(A, WORLD, 3, 3, raw_ip(got)))).port == AT_DE


def test_later_fragments_follow_the_first(nodes: Scenario) -> None:
    lose(nodes, "hk")
    first = IP(src=HOST, dst=WORLD, id=3, proto=17, flags=1) / bytes.fromhex("1388003500500000") / bytes(64)
    rest = IP(src=HOST, dst=WORLD, id=3, proto=17, frag=9) / bytes(16)
    assert only(nodes.inject("U", first)).port == AT_DE
    assert only(nodes.inject("U", rest)).port == AT_DE


def test_the_memory_of_flows_is_bounded_and_the_one_idle_longest_gives_way(nodes: Scenario) -> None:
    lose(nodes, "hk")
    for number in range(8192):
        goes(nodes, HOST, 1000 + number)
    goes(nodes, HOST, 1000)
    goes(nodes, HOST, 60_000)
    assert len(nodes.gateway.nodes) == 8192
    lose(nodes)
    assert goes(nodes, HOST, 1000) == AT_DE
    assert goes(nodes, HOST, 1001) == "V"
    assert goes(nodes, HOST, 60_000) == AT_DE


def test_a_reload_forgets_flows_that_it_decides_otherwise(nodes: Scenario) -> None:
    lose(nodes, "hk")
    assert goes(nodes) == AT_DE
    assert goes(nodes, destination=OTHER) == AT_DE
    lose(nodes)
    nodes.reload(PEERS.replace('fallback = "jp"\n', ""))
    assert goes(nodes) == AT_DE, "what is decided the same lives on"
    nodes.reload(PEERS.replace("[peer.jp]\nallowed_ips = [", f'[peer.jp]\nallowed_ips = ["{WORLD}/32", '))
    assert len(nodes.gateway.nodes) == 1
    assert goes(nodes) == AT_JP
    nodes.reload(PEERS)
    assert goes(nodes) == "V"
    assert goes(nodes, destination=OTHER) == AT_DE
    nodes.reload(PEERS.replace('fallback = "de"', 'fallback = "jp"'))
    assert goes(nodes, destination=OTHER) == "V"
    assert len(nodes.gateway.nodes) == 0


def test_a_route_files_node_falls_back_too(make: MakeScenario) -> None:
    s = make("V", PEERS, files={"route/jp": "8.8.8.0/24\n"})
    s.replayable = False
    lose(s, "jp")
    told = only(s.inject("L", udp((A, 5000), (WORLD, 53))))
    assert (told.ip[ICMP].type, told.ip[ICMP].code) == (3, 1), "jp has no fallback"
    s.reload(PEERS.replace("[peer.jp]\n", '[peer.jp]\nfallback = "hk"\n').replace('fallback = "jp"\n', ""))
    assert goes(s) == "V"


@pytest.mark.parametrize("fallback", ["hk", "de", "nobody"])
def test_a_circle_that_only_a_replay_would_take_ends(make: MakeScenario, fallback: str) -> None:
    s = make("V", f'[peer.hk]\nallowed_ips = ["0.0.0.0/0"]\nfallback = "{fallback}"\n[peer.de]\nfallback = "hk"\n')
    s.replayable = False
    lose(s, "hk", "de", "nobody")
    assert only(s.inject("L", udp((A, 5000), (WORLD, 53)))).ip[ICMP].code == 1


def test_visitors_by_a_fallback_are_answered_by_it(make: MakeScenario) -> None:
    forward = f'[[alias.forward]]\non = "vpn"\nprotocol = "tcp"\noutside_port = 8080\ninside = "{A}:80"\n'
    s = make("V", PEERS + forward)
    s.replayable = False
    assert only(s.inject(AT_DE, tcp((WORLD, 9), (ADDRESS_V, 8080), "S"))).port == "L"
    assert only(s.inject("L", tcp((A, 80), (WORLD, 9), "SA", ack=1))).port == AT_DE


def test_people_are_told_which_node_is_used_and_why(nodes: Scenario) -> None:
    def get() -> dict[str, object]:
        return route.get(Subject(nodes.gateway), {"ip": WORLD}, nodes.now)

    assert "node" not in get()
    lose(nodes, "hk")
    assert (get()["node"], get()["why"]) == ("de", "hk is unreachable, de is its fallback")
    said = [says for _, says in nodes.gateway.trace("tun0", bytes(udp((HOST, 5), (WORLD, 53))), nodes.now).steps]
    assert "hk is unreachable: de takes it" in said
    lose(nodes)
    said = [says for _, says in nodes.gateway.trace("tun0", bytes(udp((HOST, 5), (WORLD, 53))), nodes.now).steps]
    assert "hk is back, but the flow began elsewhere: de takes it" in said
    lose(nodes, "hk", "de", "jp")
    assert (get()["node"], get()["why"]) == (None, "hk is unreachable, and so is its fallback: de, jp")
    lose(nodes, "jp")
    assert "node" not in get()
