"""topology.md is checked: the tables of flows and the example run through the gateway as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conformance import exit_node
from tests.conformance.harness import ARP, IP, UDP, Ether, Out, Scenario

TEXT = (Path(__file__).resolve().parent.parent / "topology.md").read_text()
PORT_LETTERS = {"tap0": "L", "tap1": "O", "tun0": "U", "vpn": "V"}
REPLACE = (
    ('"192.168.200.10" = "02:aa:00:00:00:0a"', '"192.168.200.3" = "02:aa:00:00:00:03"'),
    ('"192.168.200.11" = "02:aa:00:00:00:0b"', '"192.168.200.4" = "02:aa:00:00:00:04"'),
)
ISP_ENTRY = '[tap1.arp]\n"192.168.1.1" = "02:aa:00:00:00:01"\n'


def rows(heading: str) -> list[list[str]]:
    section = TEXT.split(heading, 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def ends(cell: str) -> tuple[str, str]:
    source, destination = re.findall(r"\d+\.\d+\.\d+\.\d+", cell)
    return source, destination


def port(cell: str) -> str:
    name = cell.rsplit(" on ", 1)[1].strip()
    return PORT_LETTERS.get(name, name)


@pytest.mark.parametrize("row", rows("## The four flows"), ids=lambda row: row[0])
def test_each_flow_of_the_table_passes_as_it_is_written(tmp_path: Path, row: list[str]) -> None:
    _, request, beyond, reply, back = row
    s = Scenario(tmp_path, "O", replace=REPLACE, offload="114.114.114.0/24\n")
    source, destination = ends(request)
    (out,) = s.inject(port(request), IP(src=source, dst=destination) / UDP(sport=4000, dport=53))
    assert (out.port, (out.ip.src, out.ip.dst)) == (port(beyond), ends(beyond))
    source, destination = ends(reply)
    (out,) = s.inject(port(beyond), IP(src=source, dst=destination) / UDP(sport=53, dport=out.ip[UDP].sport))
    assert (out.port, (out.ip.src, out.ip.dst)) == (port(back), ends(back))


@pytest.mark.parametrize("row", rows("## The exit role"), ids=lambda row: row[0])
def test_each_flow_of_the_exit_role_passes_as_it_is_written(tmp_path: Path, row: list[str]) -> None:
    _, request, beyond, reply, back = row
    s = Scenario(tmp_path, "O", configuration=exit_node.CONFIGURATION)
    source, destination = ends(request)
    (out,) = s.inject(port(request), IP(src=source, dst=destination) / UDP(sport=4000, dport=53))
    assert (out.port, (out.ip.src, out.ip.dst)) == (port(beyond), ends(beyond))
    source, destination = ends(reply)
    (out,) = s.inject(port(beyond), IP(src=source, dst=destination) / UDP(sport=53, dport=out.ip[UDP].sport))
    assert (out.port, (out.ip.src, out.ip.dst)) == (port(back), ends(back))


def told(frame: bytes, mapped: int) -> tuple[str, str, str]:
    """(Ethernet, packet, TTL) of a frame in the words of the table."""
    ether = Ether(frame)
    macs = f"{ether.src} > {ether.dst}"
    if ARP in ether:
        arp = ether[ARP]
        asks = f"arp who-has {arp.pdst} tell {arp.psrc}" if arp.op == 1 else f"arp {arp.psrc} is-at {arp.hwsrc}"
        return macs, asks, "-"
    ip, udp = ether[IP], ether[UDP]
    names = {mapped: "m"}
    ports = names.get(udp.sport, udp.sport), names.get(udp.dport, udp.dport)
    return macs, f"udp {ip.src}:{ports[0]} > {ip.dst}:{ports[1]}", str(ip.ttl)


def test_the_example_passes_packet_by_packet_as_it_is_written(tmp_path: Path) -> None:
    table = [tuple(row[1:]) for row in rows("## One exchange, packet by packet")]
    s = Scenario(tmp_path, "O", replace=(*REPLACE, (ISP_ENTRY, "")), offload="114.114.114.0/24\n")
    s.inject("L", IP(src="192.168.200.4", dst="114.114.114.9") / UDP(sport=5353, dport=53), mac="02:aa:00:00:00:04")
    s.advance(4)  # the ISP router did not answer yet: its first packet is given up, its link stays
    first = Ether(src="02:aa:00:00:00:03", dst="02:00:00:00:c8:02") / IP(src="192.168.200.3", dst="114.114.114.114")
    shown: list[tuple[str, bytes]] = [("tap0 in", bytes(first / UDP(sport=5353, dport=53)))]

    def step(outs: list[Out]) -> Out:
        (out,) = outs
        shown.append(("tap0 out" if out.port == "L" else "tap1 out", out.frame))
        return out

    step(s.inject("L", shown[0][1]))
    answer = Ether(src="02:aa:00:00:00:01", dst="02:00:00:00:01:02") / ARP(
        op=2, hwsrc="02:aa:00:00:00:01", psrc="192.168.1.1", hwdst="02:00:00:00:01:02", pdst="192.168.1.2"
    )
    shown.append(("tap1 in", bytes(answer)))
    sent = step(s.inject("O", bytes(answer)))
    mapped = sent.ip[UDP].sport
    assert mapped != 5353
    assert mapped % 2 == 1
    assert mapped >= 1024
    reply = Ether(src="02:aa:00:00:00:01", dst="02:00:00:00:01:02") / IP(
        src="114.114.114.114", dst="192.168.1.2", ttl=60
    )
    shown.append(("tap1 in", bytes(reply / UDP(sport=53, dport=mapped))))
    step(s.inject("O", shown[-1][1]))
    assert [(where, *told(frame, mapped)) for where, frame in shown] == table
