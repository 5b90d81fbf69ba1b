"""tap1 with a /31 or a /32: the walk finds the ISP router, and only it (report 43, RFC 3021)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.arp_frames import arp
from tests.conformance.harness import ADDRESS_O, IP, MAC_ISP, MAC_O, NO_STATIC, UDP, A, E, Scenario


@pytest.mark.parametrize(
    ("own", "router", "length"),
    [("203.0.113.128", "203.0.113.129", 31), ("203.0.113.131", "203.0.113.130", 31), ("203.0.113.9", "100.64.0.1", 32)],
)
def test_a_lan_host_reaches_the_world_by_a_narrow_link(tmp_path: Path, own: str, router: str, length: int) -> None:
    names = ((f'"{ADDRESS_O}/24"', f'"{own}/{length}"'), ('gateway = "192.168.1.1"', f'gateway = "{router}"'))
    s = Scenario(tmp_path, "O", replace=(NO_STATIC[1], *names))
    (asked,) = s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=53))
    assert (asked.arp.psrc, asked.arp.pdst) == (own, router)
    (out,) = s.inject("O", arp(2, MAC_ISP, router, MAC_O, own, to=MAC_O))
    assert (out.eth.dst, out.ip.src) == (MAC_ISP, own)
    (back,) = s.outside(IP(src=E, dst=own) / UDP(sport=53, dport=out.ip.sport))
    assert back.ip.dst == A
    (page,) = s.inside(IP(src=A, dst=router) / UDP(sport=5000, dport=80))
    assert (page.port, page.eth.dst, page.ip.src) == ("O", MAC_ISP, own)
    (heard,) = s.inject("O", arp(1, MAC_ISP, router, tpa=own))
    assert heard.arp.op == 2
