"""The path behind one node: `path_mtus` lowers the MTU of its port, and of no other."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import ADDRESS_L, ADDRESS_V, HOST, ICMP, IP, TCP, UDP, A, Scenario
from tests.conformance.packets import echo, only, tcp, udp

NEAR, FAR = "8.8.8.8", "9.9.9.9"
AT_FAR = "vpn:jp"
FILES = {"route/jp": "9.9.9.0/24\n"}


@pytest.fixture
def narrow(make: MakeScenario) -> Scenario:
    s = make("V", files=FILES)
    s.replayable = False  # no capture holds what is known of a path
    s.gateway.mtus.known[AT_FAR] = 1220
    return s


def test_q1_the_number_is_that_of_the_nodes_path(narrow: Scenario) -> None:
    assert narrow.gateway.mtus.towards(narrow.gateway.ports.named(AT_FAR)) == 1220
    assert narrow.gateway.mtus.towards(narrow.gateway.ports.named("vpn")) == 1420
    for destination, mtu in ((FAR, 1220), (NEAR, 1420)):
        big = IP(src=A, dst=destination, flags="DF") / UDP(sport=5000, dport=53) / bytes(mtu - 28 + 1)
        told = only(narrow.inject("L", big))
        assert (told.ip.src, told.ip[ICMP].code, told.ip[ICMP].nexthopmtu) == (ADDRESS_L, 4, mtu)
        fits = IP(src=A, dst=destination, flags="DF") / UDP(sport=5000, dport=53) / bytes(mtu - 28)
        assert len(only(narrow.inject("L", fits)).frame) == mtu


def test_g27_fragments_are_cut_for_the_nodes_path(narrow: Scenario) -> None:
    big = IP(src=HOST, dst=FAR, id=5) / UDP(sport=5000, dport=53) / bytes(1372)
    assert [len(out.frame) for out in narrow.inject("U", big)] == [1220, 200]
    # A later fragment of its own is held to the same.
    first = IP(src=HOST, dst=FAR, id=6, proto=17, flags="DF+MF") / bytes(UDP(sport=5, dport=6, len=1308)) / bytes(56)
    rest = IP(src=HOST, dst=FAR, id=6, proto=17, flags="DF", frag=8) / bytes(1236)
    assert len(narrow.inject("U", first)) == 1
    assert narrow.inject("U", rest) == []
    assert narrow.dropped == "ip.too_big"


def test_g29_the_maximum_segment_fits_the_nodes_path_both_ways(narrow: Scenario) -> None:
    mss = [("MSS", 1460)]
    for destination, wanted in ((FAR, 1180), (NEAR, 1380)):
        out = only(narrow.inject("L", tcp((A, 5000), (destination, 80), "S", options=mss)))
        assert dict(out.ip[TCP].options)["MSS"] == wanted
        port = AT_FAR if destination == FAR else "V"
        back = tcp((destination, 80), (ADDRESS_V, out.ip.sport), "SA", ack=1, options=mss)
        assert dict(only(narrow.inject(port, back)).ip[TCP].options)["MSS"] == wanted


def test_our_own_answers_are_cut_for_it_too(narrow: Scenario) -> None:
    outs = narrow.inject(AT_FAR, echo((FAR, 1), ADDRESS_V, data=bytes(1372)))
    assert [len(out.frame) for out in outs] == [1220, 200]
    assert len(narrow.inject("V", echo((NEAR, 1), ADDRESS_V, data=bytes(1372)))) == 1


def test_a_path_is_never_wider_than_its_interface(narrow: Scenario) -> None:
    narrow.gateway.mtus.known[AT_FAR] = 9000
    assert narrow.gateway.mtus.towards(narrow.gateway.ports.named(AT_FAR)) == 1420
    del narrow.gateway.mtus.known[AT_FAR]
    assert len(narrow.inject("U", udp((HOST, 5000), (FAR, 53), bytes(1392)))) == 1
