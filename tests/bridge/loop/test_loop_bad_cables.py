"""The real walk in the real loop behind bad cables: whatever arrives, it is sent, answered, held or dropped with a
reason; none of it is a bug of ours, and none of it ends the loop."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.config.load import load
from bridge.loop.loop import Loop
from bridge.ports.faulty import CableFaults, FaultyPort
from bridge.ports.memory import MemoryPort
from bridge.walk.gateway import Gateway
from wire.drop import Drop
from wire.gso import GsoHeader
from wire.units import SECOND_NS

CONFIGURATION = """\
[tap0]
address = "192.168.200.2/24"
mac = "02:00:00:00:c8:02"
[tap0.arp]
"192.168.200.3" = "02:aa:00:00:00:03"
[tap1]
address = "192.168.1.2/24"
mac = "02:00:00:00:01:02"
gateway = "192.168.1.1"
[tap1.arp]
"192.168.1.1" = "02:aa:00:00:01:01"
[tun0]
address = "192.168.192.211/24"
[vpn]
address = "192.168.192.210"
node = "hk"
[offload]
prefixes = ["offload.txt"]
"""
KINDS = {"tap0": "tap", "tap1": "tap", "tun0": "tun", "vpn": "tun"}
MACS = {
    "tap0": ("02:aa:00:00:00:03", "02:00:00:00:c8:02"),
    "tap1": ("02:aa:00:00:01:01", "02:00:00:00:01:02"),
}
SOURCES = {"tap0": "192.168.200.3", "tap1": "114.114.114.114", "tun0": "192.168.192.211", "vpn": "8.8.8.8"}
DESTINATIONS = ("8.8.8.8", "114.114.114.114", "192.168.1.2", "192.168.192.210", "192.168.200.2", "192.168.200.3")
BURST = 40


class House:
    """The gateway with four memory ports, each behind a cable of its own; the clock moves when it is told to."""

    def __init__(self, folder: Path, seed: int, stack: ExitStack) -> None:
        (folder / "offload.txt").write_text("114.114.0.0/16\n")
        (folder / "gateway.toml").write_text(CONFIGURATION)
        config = load(folder / "gateway.toml", "replay")
        self.rng = random.Random(seed)
        self.now_ns = SECOND_NS
        self.gateway = Gateway(gateway_settings(config), routes_from(config), self.rng)
        self.loop = Loop(self.gateway, clock=lambda: self.now_ns)
        stack.callback(self.loop.close)
        faults = CableFaults(loss=0.05, duplicate=0.1, reorder=0.1, corrupt=0.3)
        self.ports: dict[str, MemoryPort] = {}
        for name, kind in KINDS.items():
            self.ports[name] = MemoryPort(name, "tap" if kind == "tap" else "tun", capacity=500)
            stack.callback(self.ports[name].close)
            self.loop.attach(FaultyPort(self.ports[name], faults, self.rng))

    def frame(self, port: str) -> bytes:
        """Something that a neighbour, or a vandal, may send."""
        rng = self.rng
        if rng.random() < 0.1:
            return rng.randbytes(rng.randrange(80))
        if port in MACS and rng.random() < 0.1:
            asked = ARP(op=rng.randrange(4), psrc=SOURCES[port], pdst=rng.choice(DESTINATIONS))
            return bytes(Ether(src=MACS[port][0], dst="ff:ff:ff:ff:ff:ff") / asked)
        here, there = rng.randrange(65536), rng.randrange(65536)
        above = rng.choice(
            [
                UDP(sport=here, dport=there),
                TCP(flags=rng.randrange(256), seq=rng.randrange(1 << 32), sport=here, dport=there),
                ICMP(type=rng.choice([0, 3, 8, 11, 13]), id=rng.randrange(65536)),
                ICMP(type=3, code=3)
                / IP(src=rng.choice(DESTINATIONS), dst=SOURCES[port])
                / UDP(sport=here, dport=there),
            ]
        )
        head = IP(
            src=SOURCES[port] if rng.random() < 0.9 else rng.choice(DESTINATIONS),
            dst=rng.choice(DESTINATIONS),
            ttl=rng.choice([0, 1, 2, 64]),
            flags=rng.choice([0, 0, 0, 1, 2]),
            frag=rng.choice([0, 0, 0, 1, 100]),
            id=rng.randrange(4),
        )
        packet = head / above / Raw(rng.randbytes(rng.randrange(1400)))
        return bytes(Ether(src=MACS[port][0], dst=MACS[port][1]) / packet if port in MACS else packet)


@pytest.fixture(params=range(3))
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    with ExitStack() as stack:
        yield House(tmp_path, request.param, stack)


def test_hostile_traffic_on_all_ports_finds_no_bug_and_every_drop_has_a_reason(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.loop.carry_out(house.gateway.start(house.now_ns))
    for _ in range(10):
        for name, port in house.ports.items():
            claims = None
            if house.rng.random() < 0.2:
                claims = GsoHeader(True, house.rng.choice([0, 1, 5]), 0, 500, house.rng.choice([0, 20, 24]), 6)
            port.deliver(*(house.frame(name) for _ in range(BURST)), gso=claims)
        house.loop.turn(0)
        house.now_ns += house.rng.randrange(3 * SECOND_NS)
        house.loop.turn(0)
    drops = {reason: number for reason, number in house.gateway.counters.drops.items() if number}
    assert all(" claims " in record.getMessage() for record in caplog.records)
    assert Drop.WALK_FAULT not in drops
    assert len(drops) > 10  # the traffic was hostile indeed
    assert any(port.sent for port in house.ports.values())
