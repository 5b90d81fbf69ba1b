"""Captures as ports: the real loop over files gives what `replay` gives."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP

from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.config.load import load
from bridge.loop.loop import Loop
from bridge.ports.capture import CapturePort
from bridge.replay import run as replay
from bridge.walk.gateway import Gateway
from tests.conformance.harness import CONFIGURATION, HOST, MAC_A, MAC_L, A, E, Ether
from wire import pcap
from wire.gso import GSO_TCPV4, GsoHeader


def written(path: Path, link_type: int, *packets: object) -> Path:
    with path.open("wb") as file:
        writer = pcap.PcapWriter(file, link_type)
        for packet in packets:
            writer.write(0, bytes(packet))  # type: ignore[call-overload] # scapy's packets are bytes to bytes()
    return path


def frames(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        return [record.data for record in pcap.read(file, path.name)]


def test_the_loop_over_captures_gives_what_replay_gives(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(CONFIGURATION)
    (tmp_path / "offload.txt").write_text("203.0.113.0/24\n")
    lan = [
        Ether(src=MAC_A, dst=MAC_L) / IP(src=A, dst=to) / UDP(sport=sport, dport=53) / b"ask"
        for to in (E, "8.8.8.8")
        for sport in range(5000, 5100)
    ]
    host = [IP(src=HOST, dst="8.8.8.8") / UDP(sport=7, dport=9) / b"host"]
    taken = {
        "tap0": written(tmp_path / "lan.pcap", pcap.LINK_ETHERNET, *lan),
        "tun0": written(tmp_path / "host.pcap", pcap.LINK_RAW, *host),
    }
    config = load(tmp_path / "gateway.toml", "replay")
    loop = Loop(Gateway(gateway_settings(config), routes_from(config), random.Random(0)), clock=lambda: 0)
    kinds = {"tap0": "tap", "tap1": "tap", "tun0": "tun", "vpn": "tun"}
    ports = []
    for name, kind in kinds.items():
        given = tmp_path / f"{name}-given.pcap"
        ports.append(CapturePort(name, kind, taken.get(name), given, lambda: 0))  # type: ignore[arg-type] # a literal
        loop.attach(ports[-1])
    for _ in range(10):
        loop.turn(0)
    for port in ports:
        port.close()
    loop.close()
    replay.run(config, routes_from(config), [replay.Input(n, p) for n, p in taken.items()], tmp_path / "out")
    for name in ("tap0", "tap1", "tun0"):
        assert frames(tmp_path / f"{name}-given.pcap") == frames(tmp_path / "out" / f"{name}.pcap")
    # Between ports the loop takes turns, replay takes the order of its inputs.
    assert sorted(frames(tmp_path / "vpn-given.pcap")) == sorted(frames(tmp_path / "out" / "vpn.pcap"))
    assert len(frames(tmp_path / "tap1-given.pcap")) == 100


def test_a_super_frame_is_written_as_its_segments(tmp_path: Path) -> None:
    port = CapturePort("tun0", "tun", None, tmp_path / "given.pcap", lambda: 5)
    packet = IP(src=HOST, dst=E) / TCP(sport=1, dport=2) / bytes(3000)
    port.write(bytes(packet), GsoHeader(True, GSO_TCPV4, 40, 1400, 20, 16))
    port.close()
    assert [len(frame) for frame in frames(tmp_path / "given.pcap")] == [1440, 1440, 240]


def test_a_capture_of_another_link_type_is_refused(tmp_path: Path) -> None:
    taken = written(tmp_path / "lan.pcap", pcap.LINK_ETHERNET, Ether() / IP())
    with pytest.raises(pcap.CaptureError, match="link type 1, tun0 takes"):
        CapturePort("tun0", "tun", taken, tmp_path / "given.pcap", lambda: 0)
