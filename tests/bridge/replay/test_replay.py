"""Replay: the four packet flows of the design, and the rules of the virtual clock."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.config.load import Config, load
from bridge.replay import run as replay
from bridge.replay.run import Input, Misuse, ReplaySummary
from bridge.walk.effects import Send
from tests.conftest import ROOT
from wire import pcap
from wire.gso import GSO_UDP_L4, GsoHeader
from wire.pcap import LINK_ETHERNET, LINK_RAW, CaptureError
from wire.units import SECOND_NS, seconds_ns

HOST_A, MAC_A = "192.168.200.3", "02:aa:00:00:00:03"
ROUTER, MAC_ROUTER = "192.168.1.1", "02:bb:00:00:00:01"
MAC_TAP0, MAC_TAP1 = "02:00:00:00:c8:02", "02:00:00:00:01:02"
GATEWAY_MACHINE = "192.168.192.211"
START_NS = seconds_ns(1_700_000_000)

CONFIGURATION = f"""
[tap0]
address = "192.168.200.2/24"
mac = "{MAC_TAP0}"
[tap0.arp]
"{HOST_A}" = "{MAC_A}"
[tap1]
address = "192.168.1.2/24"
mac = "{MAC_TAP1}"
gateway = "{ROUTER}"
[tap1.arp]
"{ROUTER}" = "{MAC_ROUTER}"
[tun0]
address = "{GATEWAY_MACHINE}/24"
[vpn]
address = "192.168.192.210"
node = "hk"
[offload]
prefixes = ["china.txt"]
"""


class Bench:
    """A configuration in a folder of its own, captures made for it, and replays of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        (folder / "china.txt").write_text("114.114.114.0/24\n")
        (folder / "route").mkdir()
        self.configure(CONFIGURATION)
        self.inputs: list[Input] = []
        self.events: list[dict[str, Any]] = []
        self.lines: list[str] = []

    def configure(self, text: str) -> None:
        (self.folder / "gateway.toml").write_text(text)

    @property
    def config(self) -> Config:
        return load(self.folder / "gateway.toml", "replay")

    def capture(self, port: str, packets: Sequence[tuple[float, Packet | bytes]], link_type: int | None = None) -> Path:
        """A capture of (seconds after the start, packet) as an input of `port`."""
        path = self.folder / f"in{len(self.inputs)}.pcap"
        raw = LINK_ETHERNET if port.startswith("tap") else LINK_RAW
        with path.open("wb") as file:
            writer = pcap.PcapWriter(file, raw if link_type is None else link_type)
            for after_s, packet in packets:
                writer.write(START_NS + seconds_ns(after_s), bytes(packet))
        self.inputs.append(Input(port, path))
        return path

    def run(self, **options: Any) -> ReplaySummary:
        config = self.config
        self.lines = []
        report = replay.run(config, routes_from(config), self.inputs, self.out, tell=self.lines.append, **options)
        self.events = [json.loads(line) for line in self.lines]
        return report

    def sent(self, name: str) -> list[tuple[float, bytes]]:
        """The frames that left by a port: seconds after the start, and the frame."""
        with (self.out / f"{name}.pcap").open("rb") as file:
            return [((r.timestamp_ns - START_NS) / SECOND_NS, r.data) for r in pcap.read(file, name)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def from_lan(packet: Packet) -> Packet:
    return Ether(src=MAC_A, dst=MAC_TAP0, type=0x0800) / packet


def from_router(packet: Packet) -> Packet:
    return Ether(src=MAC_ROUTER, dst=MAC_TAP1, type=0x0800) / packet


def as_sent(packet: Packet) -> bytes:
    """The bytes of a packet with every checksum computed by scapy."""
    return bytes(packet.__class__(bytes(packet)))


# The four packet flows

QUERY, ANSWER = UDP(sport=5000, dport=53) / b"ask", UDP(sport=53, dport=5000) / b"answer"
SYN, SYN_ACK = TCP(sport=40000, dport=443, flags="S", seq=100), TCP(sport=443, dport=40000, flags="SA", seq=7, ack=101)
ECHO, REPLY = ICMP(type=8, id=77, seq=1) / b"data", ICMP(type=0, id=77, seq=1) / b"data"
LAYERS = pytest.mark.parametrize(("ask", "answer"), [(QUERY, ANSWER), (SYN, SYN_ACK), (ECHO, REPLY)])
FIELDS = {"id": 4711, "ttl": 64, "tos": 0x28}


def hop(packet: Packet, **changed: object) -> bytes:
    """The same IP packet one hop further, addresses changed, every checksum computed anew by scapy."""
    twin = packet.copy()
    twin.ttl -= 1
    for name, value in changed.items():
        setattr(twin, name, value)
    return bytes(twin)


@LAYERS
def test_flow_lan_to_vpn(bench: Bench, ask: Packet, answer: Packet) -> None:
    request = IP(src=HOST_A, dst="8.8.8.8", **FIELDS) / ask
    reply = IP(src="8.8.8.8", dst="192.168.192.210", **FIELDS) / answer
    bench.capture("tap0", [(0, from_lan(request))])
    bench.capture("vpn", [(0.02, reply)])
    bench.run()
    assert bench.sent("vpn") == [(0.0, hop(request, src="192.168.192.210"))]
    frame = bytes(Ether(src=MAC_TAP0, dst=MAC_A, type=0x0800)) + hop(reply, dst=HOST_A)
    assert bench.sent("tap0") == [(0.02, frame)]
    assert bench.sent("tap1") == bench.sent("tun0") == []


@LAYERS
def test_flow_host_to_vpn(bench: Bench, ask: Packet, answer: Packet) -> None:
    request = IP(src=GATEWAY_MACHINE, dst="8.8.8.8", **FIELDS) / ask
    reply = IP(src="8.8.8.8", dst=GATEWAY_MACHINE, **FIELDS) / answer
    bench.capture("tun0", [(0, request)])
    bench.capture("vpn", [(0.02, reply)])
    bench.run()
    assert bench.sent("vpn") == [(0.0, hop(request))]
    assert bench.sent("tun0") == [(0.02, hop(reply))]
    assert bench.sent("tap0") == bench.sent("tap1") == []


@LAYERS
def test_flow_lan_to_offload(bench: Bench, ask: Packet, answer: Packet) -> None:
    request = IP(src=HOST_A, dst="114.114.114.114", **FIELDS) / ask
    reply = IP(src="114.114.114.114", dst="192.168.1.2", **FIELDS) / answer
    bench.capture("tap0", [(0, from_lan(request))])
    bench.capture("tap1", [(0.02, from_router(reply))])
    bench.run()
    frame = bytes(Ether(src=MAC_TAP1, dst=MAC_ROUTER, type=0x0800)) + hop(request, src="192.168.1.2")
    assert bench.sent("tap1") == [(0.0, frame)]
    frame = bytes(Ether(src=MAC_TAP0, dst=MAC_A, type=0x0800)) + hop(reply, dst=HOST_A)
    assert bench.sent("tap0") == [(0.02, frame)]
    assert bench.sent("vpn") == bench.sent("tun0") == []


@LAYERS
def test_flow_host_to_offload(bench: Bench, ask: Packet, answer: Packet) -> None:
    request = IP(src=GATEWAY_MACHINE, dst="114.114.114.114", **FIELDS) / ask
    reply = IP(src="114.114.114.114", dst="192.168.1.2", **FIELDS) / answer
    bench.capture("tun0", [(0, request)])
    bench.capture("tap1", [(0.02, from_router(reply))])
    bench.run()
    frame = bytes(Ether(src=MAC_TAP1, dst=MAC_ROUTER, type=0x0800)) + hop(request, src="192.168.1.2")
    assert bench.sent("tap1") == [(0.0, frame)]
    assert bench.sent("tun0") == [(0.02, hop(reply, dst=GATEWAY_MACHINE))]
    assert bench.sent("tap0") == bench.sent("vpn") == []


# Outputs and events


def test_all_outputs_are_written_even_if_nothing_leaves(bench: Bench) -> None:
    report = bench.run()
    assert report == ReplaySummary(0, 0, [replay.Passed(port, 0, 0, 0, 0, {}) for port in replay.OUTPUTS])
    link_types = {"tap0": 1, "tap1": 1, "tun0": 101, "vpn": 101}
    for name, link_type in link_types.items():
        assert (bench.out / f"{name}.pcap").read_bytes() == struct.pack(
            "<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, link_type
        )


def test_each_packet_in_and_out_is_one_event_at_exact_nanoseconds(bench: Bench) -> None:
    request = from_lan(IP(src=HOST_A, dst="8.8.8.8") / QUERY)
    path = bench.capture("tap0", [(0, request)])
    data = bytearray(path.read_bytes())
    data[28:32] = struct.pack("<I", 123_456_789)
    path.write_bytes(data)
    bench.run()
    assert bench.lines[0].startswith('{"t": 1700000000.123456789, "port": "tap0", "event": "rx", ')
    assert [(event["port"], event["event"]) for event in bench.events] == [
        ("tap0", "rx"),
        ("vpn", "tx"),
        ("vpn", "link"),
    ]
    assert bench.events[2] | {"t": 0} == {
        "t": 0,
        "port": "vpn",
        "event": "link",
        "protocol": "udp",
        "inside": f"{HOST_A}:5000",
        "outside": "192.168.192.210:5000",
        "on": "vpn",
    }


def test_a_malformed_packet_is_a_drop_with_a_reason(bench: Bench) -> None:
    bench.capture("tap0", [(0, b"short"), (1, from_lan(Raw(b"\x45")))])
    bench.capture("tun0", [(2, b"")])
    report = bench.run()
    drops = [(event["port"], event["reason"]) for event in bench.events if event["event"] == "drop"]
    assert drops == [("tap0", "eth.short"), ("tap0", "ip.short"), ("tun0", "ip.short")]
    assert [passed.drops for passed in report.ports[:3]] == [{"eth.short": 1, "ip.short": 1}, {}, {"ip.short": 1}]


def test_links_end_at_their_own_time_while_the_clock_lingers(bench: Bench) -> None:
    bench.capture("tap0", [(0, from_lan(IP(src=HOST_A, dst="8.8.8.8") / QUERY))])
    bench.run(linger_ns=seconds_ns(299.5))
    assert not [event for event in bench.events if event["event"] == "unlink"]
    report = bench.run(linger_ns=seconds_ns(300))
    assert [event["t"] for event in bench.events if event["event"] == "unlink"] == [1_700_000_300]
    assert report.ended_ns == START_NS + seconds_ns(300)


# The clock and the order of packets


def test_packets_of_all_inputs_are_taken_by_time_and_ties_by_the_order_of_arguments(bench: Bench) -> None:
    bench.capture("tun0", [(1, b"a"), (2, b"b")])
    bench.capture("vpn", [(0, b"c"), (2, b"d"), (3, b"e")])
    bench.capture("tun0", [(2, b"f")])
    bench.run()
    taken = [(event["port"], event["t"] - 1_700_000_000) for event in bench.events if event["event"] == "rx"]
    assert taken == [("vpn", 0), ("tun0", 1), ("tun0", 2), ("vpn", 2), ("tun0", 2), ("vpn", 3)]


def test_an_input_that_is_out_of_order_is_sorted_and_equal_times_keep_their_order(bench: Bench) -> None:
    def packet(number: int) -> Packet:
        return IP(src=GATEWAY_MACHINE, dst="8.8.8.8", id=number) / UDP(sport=5000, dport=53)

    bench.capture("tun0", [(3, packet(4)), (1, packet(1)), (2, packet(2)), (2, packet(3))])
    bench.run()
    assert [(t, IP(frame).id) for t, frame in bench.sent("vpn")] == [(1.0, 1), (2.0, 2), (2.0, 3), (3.0, 4)]


def test_timers_between_packets_fire_at_their_own_time_and_before_a_packet_of_that_time(bench: Bench) -> None:
    bench.configure(CONFIGURATION.replace(f'"{ROUTER}" = "{MAC_ROUTER}"', ""))
    bench.capture("tap0", [(0.25, from_lan(IP(src=HOST_A, dst="114.114.114.114") / QUERY))])
    bench.capture("tun0", [(2.25, b"")])
    bench.run(linger_ns=SECOND_NS)
    assert [(t, Ether(frame)[ARP].pdst) for t, frame in bench.sent("tap1")] == [
        (0.25, ROUTER),
        (1.25, ROUTER),
        (2.25, ROUTER),
    ]
    late = [(event["port"], event["event"]) for event in bench.events if event["t"] == 1_700_000_002.25]
    assert late[:2] == [("tap1", "tx"), ("tun0", "rx")]
    (t, error) = bench.sent("tap0")[0]
    assert (t, Ether(error)[ICMP].type, Ether(error)[ICMP].code) == (3.25, 3, 1)


def test_a_frame_waits_for_the_arp_answer_in_the_capture(bench: Bench) -> None:
    bench.configure(CONFIGURATION.replace(f'"{ROUTER}" = "{MAC_ROUTER}"', ""))
    reply = Ether(src=MAC_ROUTER, dst=MAC_TAP1) / ARP(
        op=2, hwsrc=MAC_ROUTER, psrc=ROUTER, hwdst=MAC_TAP1, pdst="192.168.1.2"
    )
    bench.capture("tap0", [(0, from_lan(IP(src=HOST_A, dst="114.114.114.114") / QUERY))])
    bench.capture("tap1", [(0.5, reply)])
    bench.run()
    request, query = bench.sent("tap1")
    assert (request[0], Ether(request[1])[ARP].op) == (0.0, 1)
    assert (query[0], Ether(query[1]).dst, Ether(query[1])[IP].src) == (0.5, MAC_ROUTER, "192.168.1.2")


def test_nothing_is_announced_unless_it_is_asked_for(bench: Bench) -> None:
    bench.capture("tun0", [(0, b"")])
    bench.run(linger_ns=seconds_ns(20))
    assert bench.sent("tap0") == bench.sent("tap1") == []
    bench.run(linger_ns=seconds_ns(20), announce=True)
    for name in ("tap0", "tap1"):
        arps = [Ether(frame)[ARP] for _, frame in bench.sent(name)]
        assert [arp.psrc == "0.0.0.0" for arp in arps] == [True] * 3 + [False] * 2


def test_times_of_zero_and_far_in_the_future_are_clocks_like_any_other(bench: Bench) -> None:
    for at in (0, 4_599_999_999 * SECOND_NS):
        path = bench.folder / "lan.pcap"
        with path.open("wb") as file:
            pcap.PcapWriter(file, LINK_ETHERNET).write(at, bytes(from_lan(IP(src=HOST_A, dst="8.8.8.8") / QUERY)))
        bench.inputs = [Input("tap0", path)]
        bench.run(linger_ns=seconds_ns(301))
        assert len(bench.sent("vpn")) == 1
        assert bench.events[-1]["event"] == "unlink"


# Ports


def test_vpn_is_the_default_node_and_other_nodes_have_outputs_of_their_own(bench: Bench) -> None:
    (bench.folder / "route" / "sg").write_text("9.9.9.0/24\n")
    config = bench.config
    routes = routes_from(config)
    assert replay.port_name(gateway_settings(config), routes, "vpn:hk") == "vpn"
    assert replay.port_name(gateway_settings(config), routes, "vpn:sg") == "vpn:sg"
    bench.capture("tap0", [(0, from_lan(IP(src=HOST_A, dst="9.9.9.9") / QUERY))])
    bench.capture("vpn:sg", [(1, IP(src="9.9.9.9", dst="192.168.192.210") / ANSWER)])
    report = bench.run()
    assert bench.sent("vpn") == []
    assert [IP(frame).src for _, frame in bench.sent("vpn-sg")] == ["192.168.192.210"]
    assert [Ether(frame)[IP].dst for _, frame in bench.sent("tap0")] == [HOST_A]
    assert [(passed.rx_packets, passed.tx_packets) for passed in report.ports if passed.port == "vpn:sg"] == [(1, 1)]


@pytest.mark.parametrize("name", ["eth0", "tap2", "tap0:x", "vpn:", "vpn:a/b", "vpn:..", "", "tun1"])
def test_an_unknown_port_is_a_misuse(bench: Bench, name: str) -> None:
    with pytest.raises(Misuse):
        replay.port_name(gateway_settings(bench.config), routes_from(bench.config), name)


def test_a_node_that_is_no_peer_is_unknown_once_there_are_peers(bench: Bench) -> None:
    config = bench.config
    assert replay.port_name(gateway_settings(config), routes_from(config), "vpn:anybody") == "vpn:anybody"
    bench.configure(CONFIGURATION + '[peer.sg]\nallowed_ips = ["9.9.9.0/24"]\n')
    config = bench.config
    assert replay.port_name(gateway_settings(config), routes_from(config), "vpn:sg") == "vpn:sg"
    with pytest.raises(Misuse, match="knows no node"):
        replay.port_name(gateway_settings(config), routes_from(config), "vpn:anybody")


def test_a_port_that_the_configuration_lacks_is_a_misuse(bench: Bench) -> None:
    bench.configure('[tap0]\naddress = "192.168.200.2/24"\n')
    with pytest.raises(Misuse, match=r"no \[tap1\]"):
        replay.port_name(gateway_settings(bench.config), routes_from(bench.config), "tap1")


EXIT = """
[tun0]
address = "10.8.0.1/24"
[peer.alice]
allowed_ips = ["10.8.0.2/32"]
[peer.bob]
allowed_ips = ["10.8.0.3/32"]
"""


def test_an_exit_node_has_a_capture_for_each_of_its_peers(bench: Bench) -> None:
    bench.configure(EXIT)
    bench.capture(
        "vpn:alice", [(0, IP(src="10.8.0.2", dst="8.8.8.8") / QUERY), (1, IP(src="10.8.0.2", dst="10.8.0.3") / QUERY)]
    )
    bench.capture("tun0", [(2, IP(src="8.8.8.8", dst="10.8.0.2") / ANSWER)])
    bench.run()
    assert [(IP(frame).src, IP(frame).dst) for _, frame in bench.sent("tun0")] == [("10.8.0.2", "8.8.8.8")]
    assert [(IP(frame).src, IP(frame).dst) for _, frame in bench.sent("vpn-bob")] == [("10.8.0.2", "10.8.0.3")]
    assert [(IP(frame).src, IP(frame).dst) for _, frame in bench.sent("vpn-alice")] == [("8.8.8.8", "10.8.0.2")]
    assert bench.sent("vpn") == []


def test_without_a_default_node_the_bare_word_vpn_is_a_misuse(bench: Bench) -> None:
    bench.configure(EXIT)
    with pytest.raises(Misuse, match="name a node, as vpn:NODE"):
        replay.port_name(gateway_settings(bench.config), routes_from(bench.config), "vpn")
    bench.configure(EXIT + "[vpn]\n")
    assert replay.port_name(gateway_settings(bench.config), routes_from(bench.config), "vpn") == "vpn"
    bench.configure('[tun0]\naddress = "10.8.0.1/24"\n')
    with pytest.raises(Misuse, match="no tunnel"):
        replay.port_name(gateway_settings(bench.config), routes_from(bench.config), "vpn:alice")


def test_tap1_of_kind_tun_carries_raw_ip(bench: Bench) -> None:
    text = CONFIGURATION.replace(f'mac = "{MAC_TAP1}"', 'kind = "tun"').replace(
        f'[tap1.arp]\n"{ROUTER}" = "{MAC_ROUTER}"', ""
    )
    bench.configure(text)
    bench.capture("tap0", [(0, from_lan(IP(src=HOST_A, dst="114.114.114.114") / QUERY))])
    bench.capture("tap1", [(1, IP(src="114.114.114.114", dst="192.168.1.2") / ANSWER)], link_type=228)
    bench.run()
    with (bench.out / "tap1.pcap").open("rb") as file:
        (record,) = pcap.read(file, "tap1")
    assert (record.link_type, IP(record.data).src) == (LINK_RAW, "192.168.1.2")
    assert len(bench.sent("tap0")) == 1


@pytest.mark.parametrize("link_type", [101, 228, 12])
def test_raw_ip_has_three_link_types(bench: Bench, link_type: int) -> None:
    bench.capture("vpn", [(0, b"")], link_type=link_type)
    bench.run()


@pytest.mark.parametrize(("port", "link_type"), [("tap0", 101), ("tap1", 113), ("tun0", 1), ("vpn", 0)])
def test_a_wrong_link_type_is_refused_with_the_right_one(bench: Bench, port: str, link_type: int) -> None:
    bench.capture(port, [(0, b"x")], link_type=link_type)
    right = "Ethernet" if port.startswith("tap") else "raw IP"
    with pytest.raises(CaptureError, match=f"record 1: link type {link_type}, but {port} carries {right}"):
        bench.run()


def test_a_capture_without_packets_fits_every_port(bench: Bench) -> None:
    bench.capture("tun0", [], link_type=1)
    bench.run()


def test_a_damaged_capture_is_refused_before_the_first_packet_is_taken(bench: Bench) -> None:
    path = bench.capture("tap0", [(0, from_lan(IP(src=HOST_A, dst="8.8.8.8") / QUERY)), (1, b"x")])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CaptureError, match=r"in0\.pcap: record 2 at byte \d+: cut by the end of the file"):
        bench.run()
    assert bench.lines == []
    assert bench.sent("vpn") == []  # written, and empty


def test_an_output_never_overwrites_an_input(bench: Bench) -> None:
    bench.out.mkdir()
    path = bench.capture("vpn", [(0, b"x")])
    path.rename(bench.out / "tun0.pcap")
    bench.inputs = [Input("vpn", bench.folder / "out" / ".." / "out" / "tun0.pcap")]
    before = (bench.out / "tun0.pcap").read_bytes()
    with pytest.raises(Misuse, match="would overwrite it"):
        bench.run()
    assert (bench.out / "tun0.pcap").read_bytes() == before


def test_a_pipe_is_an_input_too(bench: Bench) -> None:
    data = bench.capture("tun0", [(0, IP(src=GATEWAY_MACHINE, dst="8.8.8.8") / QUERY)]).read_bytes()
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    bench.inputs = [Input("tun0", Path(f"/dev/fd/{reading}"))]
    bench.run()
    os.close(reading)
    assert len(bench.sent("vpn")) == 1


def test_a_super_frame_of_a_capture_is_forwarded_whole_and_cut_for_a_peer(bench: Bench) -> None:
    """Report 06: such a capture was `ip.too_big`, though the gateway had just forwarded its frames."""
    for remote, port in (("114.114.114.114", "tap1"), ("8.8.8.8", "vpn")):
        packet = from_lan(IP(src=HOST_A, dst=remote) / TCP(sport=5, dport=80, flags="A") / (b"x" * 20_000))
        bench.inputs = []
        bench.capture("tap0", [(0, packet)])
        bench.run()
        sizes = [len(frame) for _, frame in bench.sent(port)]
        if port == "tap1":
            assert sizes == [14 + 40 + 20_000]
        else:  # 14 segments of a full tap0, each longer than the tunnel's MTU and without DF
            assert (len(sizes), max(sizes) <= 1420) == (27, True)


def test_a_super_frame_is_written_whole_for_a_device_and_as_packets_for_a_peer() -> None:
    payload = bytes(range(200)) * 10
    packet = IP(src="192.168.1.2", dst="114.114.114.114") / UDP(sport=1, dport=2) / payload
    header = Ether(src=MAC_TAP1, dst=MAC_ROUTER, type=0x0800)
    claims = GsoHeader(True, GSO_UDP_L4, 28, 800, 20, 6)
    sent = Send("tap1", bytes(header / packet), claims)
    assert [len(frame) for frame in replay._written_frames(sent, 14, is_whole=True)] == [len(header / packet)]
    frames = list(replay._written_frames(sent, 14, is_whole=False))
    assert [len(frame) - 42 for frame in frames] == [800, 800, 400]
    assert all(bytes(frame) == bytes(header) + as_sent(IP(bytes(frame[14:]))) for frame in frames)
    assert b"".join(bytes(frame[42:]) for frame in frames) == payload


# Determinism


def test_two_runs_give_identical_bytes_whatever_the_hash_seed(bench: Bench) -> None:
    (bench.folder / "route" / "sg").write_text("9.9.9.0/24\n")
    (bench.folder / "route" / "jp").write_text("9.9.8.0/24\n")
    packets = []
    for number in range(60):
        source = f"192.168.200.{number % 7 + 10}"
        target = ("8.8.8.8", "114.114.114.114", "9.9.9.9", "9.9.8.8", "192.168.200.2")[number % 5]
        packet = IP(src=source, dst=target, ttl=number % 3 + 1) / UDP(sport=5000 + number % 2, dport=53)
        packets.append((number / 10, Ether(src=f"02:aa:00:00:00:{number % 7 + 10:02x}", dst=MAC_TAP0) / packet))
    bench.capture("tap0", packets)
    results = []
    for hash_seed, seed in (("1", "5"), ("2", "5"), ("3", "6")):
        out = bench.folder / f"out{hash_seed}"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "bridgectl", "replay", "-j", "-c", "gateway.toml", "--in", "tap0=in0.pcap"),
                *("--out", str(out), "--linger", "400", "--announce", "--seed", seed),
            ],
            cwd=bench.folder,
            env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed, "TZ": f"X{hash_seed}"},
            capture_output=True,
            check=True,
        )
        files = {path.name: path.read_bytes() for path in sorted(out.iterdir())}
        results.append((done.stdout, files))
    assert results[0] == results[1]
    assert results[0] != results[2]
    assert sorted(results[0][1]) == ["tap0.pcap", "tap1.pcap", "tun0.pcap", "vpn-jp.pcap", "vpn-sg.pcap", "vpn.pcap"]


def test_all_malformed_captures_pass_through_the_walk_or_are_refused_cleanly(bench: Bench, shared: Path) -> None:
    for path in sorted((shared / "pcaps").glob("*/*.pcap*")):
        bench.inputs = [Input("tap0", path), Input("tap1", path)]
        try:
            bench.run(linger_ns=seconds_ns(5))
        except CaptureError as fault:
            assert str(path) in str(fault)  # noqa: PT017 - most files raise nothing
