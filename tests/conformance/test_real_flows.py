"""T2, U1: connections as they were recorded in the world, with A and E in the places of their two ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import IP, START_NS, TCP, UDP, A, E, Scenario
from tests.conformance.packets import only
from wire import pcap

CAPTURES = [
    "dns-long-connection.pcap",
    "dns-tm1t.pcap",
    "ftp-ipv4.pcap",
    "http-get-gzip.pcap",
    "http-get-to-ssh-server.pcap",
    "http-get-without-fins.pcap",
    "http-get_nosyn.pcap",
]


@pytest.mark.parametrize("name", CAPTURES)
def test_t2_recorded_traffic_passes_as_it_came(make: MakeScenario, egress: str, shared: Path, name: str) -> None:
    s = make(egress, replace=(('node = "hk"', 'node = "hk"\nmtu = 1500'),))  # nothing is too big, no MSS is lowered
    clients: set[tuple[str, int]] = set()
    with (shared / "pcaps" / "real" / name).open("rb") as file:
        records = list(pcap.read(file, name))
    for record in records:
        packet = _without_padding(bytes(record.data)[14:])
        s.advance((record.timestamp_ns - records[0].timestamp_ns - (s.now - START_NS)) / 1e9)
        layer = TCP if packet.haslayer(TCP) else UDP
        if (packet.dst, packet[layer].dport) not in clients:
            clients.add((packet.src, packet[layer].sport))
            _passes(s, packet, layer, (A, E), (s.X, E), egress)
        else:
            _passes(s, packet, layer, (E, s.X), (E, A), "L")


def _without_padding(packet: bytes) -> IP:
    return IP(packet[: int.from_bytes(packet[2:4], "big")])


def _passes(
    s: Scenario,
    packet: IP,
    layer: type[TCP] | type[UDP],
    names: tuple[str, str],
    names_after: tuple[str, str],
    port: str,
) -> None:
    """The packet under `names` comes out at `port` under `names_after`, and is otherwise as scapy would have it."""
    sent, expected = packet.copy(), packet.copy()
    for built, (source, destination) in ((sent, names), (expected, names_after)):
        built.src, built.dst = source, destination
        built.ttl = 63 if built is expected else 64
        del built.chksum, built[layer].chksum
    got = only(s.inside(sent) if port != "L" else s.outside(sent))
    assert got.port == port
    assert bytes(got.ip) == bytes(expected)
