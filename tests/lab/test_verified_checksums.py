"""With the hosts' offloads off, receivers verify each checksum that we wrote instead of trusting partial ones."""

from __future__ import annotations

import pytest

from lab.flows import FLOWS, PacketFlow
from lab.topology import HOSTS, Lab

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def plain_lab(lab: Lab) -> Lab:
    for name in (*HOSTS, "isp"):
        lab.namespaces[name].switch_offloads_off("eth0")
    lab.namespaces["exit"].switch_offloads_off("vpn0")
    lab.namespaces["gw"].switch_offloads_off("tun0")
    return lab


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_ordinary_packets_arrive_with_whole_checksums(plain_lab: Lab, flow: PacketFlow) -> None:
    for words in (("ask", "1400"), ("ask", "4000"), ("transfer", "3000000", "3000000")):
        answer = plain_lab.client(flow.client, words[0], flow.remote, *words[1:])
        assert answer["ok"], answer
    assert not any(plain_lab.ask("stats")["drops"][reason] for reason in ("port.malformed", "transport.short"))
