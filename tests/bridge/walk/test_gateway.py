"""The four packet flows of the design, and the walk's own rules, on a gateway without devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.harness import HOST, ICMP, IP, TCP, UDP, A, E, Out, Scenario


def one(outs: list[Out]) -> Out:
    assert len(outs) == 1
    return outs[0]


@pytest.mark.parametrize("egress", ["O", "V"])
@pytest.mark.parametrize("layer", [UDP(sport=5000, dport=53), TCP(sport=5000, dport=80, flags="S"), ICMP(id=77)])
def test_a_lan_host_reaches_a_remote_and_hears_it(tmp_path: Path, egress: str, layer: UDP | TCP | ICMP) -> None:
    s = Scenario(tmp_path, egress)
    request = one(s.inside(IP(src=A, dst=E) / layer / b"ask"))
    assert (request.port, request.ip.src, request.ip.dst, request.ip.ttl) == (egress, s.X, E, 63)
    answer = layer.copy()
    if isinstance(layer, ICMP):
        answer.type = 0
    else:
        answer.sport, answer.dport = layer.dport, layer.sport
    reply = one(s.outside(IP(src=E, dst=s.X) / answer / b"answer"))
    assert (reply.port, reply.ip.src, reply.ip.dst) == ("L", E, A)


def test_the_host_reaches_the_tunnel_by_its_own_name_and_the_offload_by_an_alias(tmp_path: Path) -> None:
    s = Scenario(tmp_path, "O")
    out = one(s.inject("U", IP(src=HOST, dst="8.8.8.8") / UDP(sport=5000, dport=53)))
    assert (out.port, out.ip.src) == ("V", HOST)
    back = one(s.inject("V", IP(src="8.8.8.8", dst=HOST) / UDP(sport=53, dport=5000)))
    assert (back.port, back.ip.dst) == ("U", HOST)
    out = one(s.inject("U", IP(src=HOST, dst=E) / UDP(sport=5000, dport=53)))
    assert (out.port, out.ip.src) == ("O", s.X)
    back = one(s.inject("O", IP(src=E, dst=s.X) / UDP(sport=53, dport=5000)))
    assert (back.port, back.ip.dst) == ("U", HOST)
