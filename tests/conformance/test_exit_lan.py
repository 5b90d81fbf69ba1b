"""The exit role beside a LAN: what the tunnel's peers reach of a gateway's tap1, and what of the LAN stays closed."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import MakeScenario
from tests.conformance.exit_node import WORLD, ends
from tests.conformance.harness import ADDRESS_L, ADDRESS_O, ADDRESS_V, HOST, ICMP, IP, A, B, E, Scenario
from tests.conformance.packets import echo, error, only, raw_ip, tcp, udp
from wire.drop import Drop

PHONE, DESK = "10.8.0.2", "10.8.0.3"
PEERS = f"""
[tunnel]
[peer.hk]
allowed_ips = ["0.0.0.0/0"]
[peer.phone]
allowed_ips = ["{PHONE}/32"]
exit = true
[peer.desk]
allowed_ips = ["{DESK}/32"]
"""
AT_PHONE, AT_DESK = "vpn:phone", "vpn:desk"


@pytest.fixture
def gateway(make: MakeScenario) -> Scenario:
    return make("O", PEERS)


def test_nothing_from_the_tunnel_reaches_tap1_without_exit(gateway: Scenario) -> None:
    for port, source in ((AT_DESK, DESK), ("V", WORLD)):
        for destination in (E, WORLD, "192.168.1.1", "192.168.1.77", ADDRESS_O, "10.9.9.9"):
            for packet in (udp((source, 5000), (destination, 53)), echo((source, 1), destination)):
                assert gateway.inject(port, packet) == []
                assert gateway.dropped == Drop.ROUTE_NOT_FROM_OUTSIDE
            assert gateway.inject(port, udp((source, 5000), (destination, 53), ttl=1)) == []


def test_with_exit_a_peer_leaves_by_tap1_also_where_the_lan_does_not(gateway: Scenario) -> None:
    for destination in (E, WORLD, "192.168.1.1"):
        out = only(gateway.inject(AT_PHONE, udp((PHONE, 5000), (destination, 53))))
        assert ends(out) == ("O", ADDRESS_O, destination)
        back = only(gateway.inject("O", udp((destination, 53), (ADDRESS_O, out.ip.sport))))
        assert ends(back) == (AT_PHONE, destination, PHONE)
    told = only(gateway.inject("O", error("192.0.2.1", ADDRESS_O, 11, 0, raw_ip(out))))
    assert ends(told) == (AT_PHONE, "192.0.2.1", PHONE)


def test_peers_do_not_reach_each_other_nor_the_lan_through_it(gateway: Scenario) -> None:
    for port, source in ((AT_PHONE, PHONE), (AT_DESK, DESK)):
        for destination in (A, B, ADDRESS_L, PHONE, DESK):
            for packet in (udp((source, 5000), (destination, 53)), echo((source, 1), destination)):
                assert gateway.inject(port, packet) == []
                assert gateway.dropped == Drop.ROUTE_NOT_FROM_OUTSIDE


def test_the_host_and_the_alias_stay_what_they_are(gateway: Scenario) -> None:
    assert ends(only(gateway.inject(AT_PHONE, udp((PHONE, 5000), (HOST, 53))))) == ("U", PHONE, HOST)
    assert ends(only(gateway.inject(AT_PHONE, echo((PHONE, 1), ADDRESS_V)))) == (AT_PHONE, ADDRESS_V, PHONE)
    assert gateway.inject(AT_PHONE, udp((PHONE, 5000), (ADDRESS_V, 53))) == []
    assert gateway.dropped == Drop.ALIAS_NO_LINK


def test_lan_hosts_reach_a_peer_under_the_alias_and_it_answers(gateway: Scenario) -> None:
    out = only(gateway.inject("L", udp((A, 5000), (PHONE, 53))))
    assert ends(out) == (AT_PHONE, ADDRESS_V, PHONE)
    assert ends(only(gateway.inject(AT_PHONE, udp((PHONE, 53), (ADDRESS_V, out.ip.sport))))) == ("L", PHONE, A)


def test_without_an_alias_the_lan_is_open_to_peers_and_tap1_to_those_with_exit(make: MakeScenario) -> None:
    s = make("O", PEERS, replace=((f'address = "{ADDRESS_V}"\n', ""),))
    assert ends(only(s.inject(AT_PHONE, udp((PHONE, 5000), (A, 53))))) == ("L", PHONE, A)
    assert ends(only(s.inject("L", udp((A, 53), (PHONE, 5000))))) == (AT_PHONE, A, PHONE)
    assert ends(only(s.inject(AT_PHONE, udp((PHONE, 5000), (E, 53))))) == ("O", ADDRESS_O, E)
    assert s.inject(AT_DESK, udp((DESK, 5000), (PHONE, 53))) == []


def test_u9_lan_hosts_and_peers_meet_at_tap1s_address(gateway: Scenario) -> None:
    lan = only(gateway.inject("L", udp((A, 5000), (E, 53)))).ip.sport
    phone = only(gateway.inject(AT_PHONE, udp((PHONE, 6000), (E, 53)))).ip.sport
    assert ends(only(gateway.inject(AT_PHONE, udp((PHONE, 6000), (ADDRESS_O, lan))))) == ("L", ADDRESS_O, A)
    assert ends(only(gateway.inject("L", udp((B, 5000), (ADDRESS_O, phone))))) == (AT_PHONE, ADDRESS_O, PHONE)
    assert gateway.inject(AT_DESK, udp((DESK, 6000), (ADDRESS_O, lan))) == [], "desk has no exit"


def test_the_default_node_may_leave_too_and_its_links_are_not_the_lans(make: MakeScenario) -> None:
    s = make("O", '[peer.hk]\nallowed_ips = ["0.0.0.0/0"]\nexit = true\n')
    out = only(s.inject("V", tcp(("10.77.0.5", 5000), (E, 443), "S")))
    assert ends(out) == ("O", ADDRESS_O, E)
    lan = only(s.inject("L", tcp((A, 5000), (E, 443), "S")))
    assert ends(only(s.inject("O", tcp((E, 443), (ADDRESS_O, out.ip.sport), "SA", ack=1)))) == ("V", E, "10.77.0.5")
    assert ends(only(s.inject("O", tcp((E, 443), (ADDRESS_O, lan.ip.sport), "SA", ack=1)))) == ("L", E, A)
    assert s.inject("V", udp((A, 5000), (E, 53))) == []
    assert s.dropped == Drop.IP_SPOOFED_SOURCE


def test_a_peers_private_destination_is_refused_in_words(gateway: Scenario) -> None:
    told = only(gateway.inject(AT_PHONE, udp((PHONE, 5000), ("10.9.9.9", 53))))
    assert ends(told) == (AT_PHONE, ADDRESS_V, PHONE)
    assert (told.ip[ICMP].type, told.ip[ICMP].code) == (3, 0)


def test_an_undelivered_answer_is_told_to_the_remote_and_to_nobody_else(gateway: Scenario) -> None:
    gateway.replayable = False
    mapped = only(gateway.inject(AT_PHONE, udp((PHONE, 5000), (E, 53)))).ip.sport
    lost = only(gateway.inject("O", udp((E, 53), (ADDRESS_O, mapped))))
    told = only(gateway._collect(gateway.gateway.undelivered(AT_PHONE, lost.frame, gateway.now)))
    assert ends(told) == ("O", ADDRESS_O, E)
    asked = only(gateway.inject("L", udp((A, 5000), (PHONE, 53))))
    told = only(gateway._collect(gateway.gateway.undelivered(AT_PHONE, asked.frame, gateway.now)))
    assert ends(told) == ("L", ADDRESS_L, A)


def test_w22_replay_knows_whose_a_source_is(gateway: Scenario) -> None:
    for port, source in ((AT_PHONE, DESK), (AT_DESK, PHONE), ("V", PHONE), (AT_DESK, WORLD)):
        assert gateway.inject(port, udp((source, 53), (HOST, 5000))) == []
        assert gateway.dropped == Drop.TUNNEL_INNER_SOURCE
    assert only(gateway.inject("V", udp((WORLD, 53), (HOST, 5000)))).port == "U"


def test_w22_a_node_without_a_table_is_taken_at_its_word(make: MakeScenario) -> None:
    s = make("O", files={"route/jp": "8.8.8.0/24\n"})
    assert only(s.inject("vpn:jp", IP(src="8.8.8.8", dst=HOST) / b"")).port == "U"
