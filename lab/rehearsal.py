"""The four flows without devices or privileges: captures made here, replayed through the same forwarder, read back.

It cannot show kernel stacks, super-frames and speed, and says so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bridge.config.into_routes import routes_from
from bridge.config.load import load
from bridge.replay import run as replay
from lab.flows import PacketFlow
from lab.steps import DemoSteps
from lab.topology import CONFIGURATION, HOSTS, ROUTER
from wire import ipv4, pcap
from wire.checksum import checksum, pseudo_header_sum
from wire.ethernet import HEADER_BYTES, IPV4_TYPE
from wire.units import SECOND_NS, address_int, mac_bytes

_GATEWAY_MACS = {"tap0": "02:00:00:00:c8:02", "tap1": "02:00:00:00:01:02"}
_NEIGHBOURS = {"tap0": (HOSTS["lan3"], "02:aa:00:00:00:03"), "tap1": (ROUTER, "02:aa:00:00:00:01")}
_CLIENT_PORT, _SERVER_PORT = 40_000, 53


class _GivenPacket(NamedTuple):
    """A UDP packet of a flow: when, at which port, between which ends."""

    at_ns: int
    port: str
    source: tuple[str, int]
    destination: tuple[str, int]


def rehearse(steps: DemoSteps, flows: Sequence[PacketFlow]) -> None:
    """Make the captures, replay them, and check every hop of every flow."""
    with tempfile.TemporaryDirectory(prefix="tapbridge-rehearsal-") as name:
        folder = Path(name)
        with steps.step("replaying the four flows from captures (no kernel stacks, no speed)"):
            given: list[_GivenPacket] = []
            for number, flow in enumerate(flows):
                at_ns = number * SECOND_NS
                client, server = _CLIENT_PORT + number, _SERVER_PORT
                given.append(_GivenPacket(at_ns, flow.port, (flow.address, client), (flow.remote, server)))
                back = _GivenPacket(at_ns + SECOND_NS // 10, flow.beyond, (flow.remote, server), (flow.seen_as, client))
                given.append(back)
            out = _replay(folder, given)
            for number, flow in enumerate(flows):
                hops = _hops(given[2 * number : 2 * number + 2], out)
                steps.show_hops(flow, hops)
                steps.check(hops == flow.hops, f"{flow.name}: as topology.md says")


def _hops(given: Sequence[_GivenPacket], out: dict[tuple[int, str], str]) -> list[tuple[str, str]]:
    """Request in, request out, reply in, reply out: (port, `source -> destination`)."""
    found = []
    for packet in given:
        found.append((packet.port, f"{packet.source[0]} -> {packet.destination[0]}"))
        found += [(port, ends) for (at_ns, port), ends in out.items() if at_ns == packet.at_ns]
    return found


def _replay(folder: Path, given: Sequence[_GivenPacket]) -> dict[tuple[int, str], str]:
    """(time, port) of each packet out, with its ends."""
    (folder / "offload.txt").write_text("114.114.0.0/16\n")
    path = folder / "gateway.toml"
    text = CONFIGURATION
    for port, mac in _GATEWAY_MACS.items():
        address, neighbour = _NEIGHBOURS[port]
        static = f'mac = "{mac}"\n[{port}.arp]\n"{address}" = "{neighbour}"\n'
        text = text.replace(f'bridge = "br{port[-1]}"\n', static)
    path.write_text(text)
    inputs = []
    for port in sorted({packet.port for packet in given}):
        capture = folder / f"{port}-in.pcap"
        with capture.open("wb") as file:
            writer = pcap.PcapWriter(file, pcap.LINK_ETHERNET if port in _GATEWAY_MACS else pcap.LINK_RAW)
            for packet in given:
                if packet.port == port:
                    writer.write(packet.at_ns, _frame(packet))
        inputs.append(replay.Input(port, capture))
    config = load(path, "replay")
    replay.run(config, routes_from(config), inputs, folder / "out")
    found = {}
    for port in ("tap0", "tap1", "tun0", "vpn"):
        with (folder / "out" / f"{port}.pcap").open("rb") as file:
            for record in pcap.read(file, port):
                data = bytes(record.data[HEADER_BYTES:] if port in _GATEWAY_MACS else record.data)
                ends = [".".join(map(str, data[at : at + 4])) for at in (12, 16)]
                found[record.timestamp_ns, port] = f"{ends[0]} -> {ends[1]}"
    return found


def _frame(packet: _GivenPacket) -> bytes:
    source, destination = address_int(packet.source[0]), address_int(packet.destination[0])
    payload = b"the four flows"
    body = packet.source[1].to_bytes(2, "big") + packet.destination[1].to_bytes(2, "big")
    body += (8 + len(payload)).to_bytes(2, "big") + b"\0\0" + payload
    check = checksum(body, pseudo_header_sum(source, destination, ipv4.UDP, len(body)))
    body = body[:6] + check.to_bytes(2, "big") + body[8:]
    data = ipv4.header(source, destination, ipv4.UDP, len(body), flags=ipv4.DONT_FRAGMENT) + body
    if packet.port not in _GATEWAY_MACS:
        return data
    return mac_bytes(_GATEWAY_MACS[packet.port]) + mac_bytes(_NEIGHBOURS[packet.port][1]) + IPV4_TYPE + data
