"""Things that no packet does on an exit node: random traffic at every port of the real walk."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Raw

from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.config.load import read
from bridge.walk.effects import Send
from bridge.walk.gateway import Gateway
from tests.conformance.exit_node import (
    ALICE,
    AT_ALICE,
    AT_BOB,
    AT_CAROL,
    BEHIND_ALICE,
    BEHIND_CAROL,
    BOB,
    CAROL,
    CONFIGURATION,
    EXIT,
)
from tests.conformance.harness import ADDRESS_O, MAC_ISP, MAC_O, Ether

WORLD = ("8.8.8.8", "203.0.113.5", "192.168.1.77", "192.168.1.1", "10.9.9.9", "10.8.0.77", "172.16.0.1")
ADDRESSES = (ALICE, BOB, CAROL, BEHIND_ALICE, BEHIND_CAROL, EXIT, ADDRESS_O, *WORLD)
PORTS = (AT_ALICE, AT_BOB, AT_CAROL, "tun0", "tap1")
OWN = {AT_ALICE: (ALICE, BEHIND_ALICE), AT_BOB: (BOB,), AT_CAROL: (CAROL, BEHIND_CAROL)}


def packet(rng: random.Random, source: str, destination: str, seen: list[bytes]) -> IP:
    ip = IP(src=source, dst=destination, ttl=rng.choice((1, 2, 64)), id=rng.randrange(4))
    ports = [rng.choice((53, 80, 5000, 5001)) for _ in range(2)]
    kind = rng.randrange(6)
    if kind == 0:
        return ip / UDP(sport=ports[0], dport=ports[1]) / Raw(bytes(rng.choice((0, 1392, 1393))))
    if kind == 1:
        return ip / TCP(sport=ports[0], dport=ports[1], flags=rng.choice(("S", "SA", "A", "R")))
    if kind == 2:
        return ip / ICMP(type=rng.choice((8, 0)), id=ports[0])
    if kind == 3 and seen:
        return ip / ICMP(type=rng.choice((3, 11)), code=rng.choice((0, 1, 4))) / Raw(rng.choice(seen)[:48])
    if kind == 4:
        ip.frag, ip.flags, ip.proto = rng.choice(((0, 1, 17), (2, 1, 17), (4, 0, 17)))
        return ip / (bytes(UDP(sport=ports[0], dport=ports[1], len=40)) + bytes(8) if not ip.frag else bytes(16))
    return ip / Raw(bytes(8))


@pytest.mark.parametrize("seed", range(4))
def test_nothing_crosses_that_should_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "offload.txt").write_text("203.0.113.0/24\n")
    forward = f'[[alias.forward]]\non = "tap1"\nprotocol = "tcp"\noutside_port = 80\ninside = "{ALICE}:80"\n'
    config = read(CONFIGURATION + forward, Path("gateway.toml"), "replay")
    rng = random.Random(seed)
    gateway = Gateway(gateway_settings(config), routes_from(config), random.Random(seed))
    seen: list[bytes] = []
    now = 0
    visited = set()
    for _ in range(1000):
        now += rng.choice((0, 10**6, 10**9))
        came_by = rng.choice(PORTS)
        likely = OWN.get(came_by) if rng.random() < 0.8 else None
        given = packet(rng, rng.choice(likely or ADDRESSES), rng.choice(ADDRESSES), seen)
        links = [link.outside_port for link in gateway.aliases.links(now)]
        if given.dst == ADDRESS_O and links and UDP in given and not given.frag:
            given[UDP].dport = rng.choice(links)
        raw = bytes(given)
        if came_by == "tap1" and TCP in given and given[TCP].dport == 80:
            visited.add((given.src, given[TCP].sport))
        frame = bytes(Ether(src=MAC_ISP, dst=MAC_O, type=0x0800)) + raw if came_by == "tap1" else raw
        for effect in gateway.receive(came_by, frame, now):
            if not isinstance(effect, Send) or (effect.port == "tap1" and effect.frame[12:14] != b"\x08\x00"):
                continue
            out = IP(bytes(effect.frame[14:] if effect.port == "tap1" else effect.frame))
            seen.append(bytes(out))
            told = (came_by, given.summary(), effect.port, out.summary())
            assert out.ttl > 0, told
            if effect.port == "tap1":
                assert out.src == ADDRESS_O, told
                if came_by == AT_ALICE:  # she answers visitors of the forward, nothing else
                    assert (out.dst, out.dport) in visited if TCP in out else ICMP in out, told
            if came_by in OWN:
                owner = next((own for own, addresses in OWN.items() if given.src in addresses), None)
                assert owner == came_by, told
                if effect.port == came_by:  # our answers, and the way round at tap1's address
                    assert out.src in (EXIT, ADDRESS_O), told
            if effect.port in OWN:
                assert out.dst in OWN[effect.port], told
        gateway.tick(now)
    assert len(seen) > 150
