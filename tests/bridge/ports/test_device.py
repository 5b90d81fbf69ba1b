"""Real taps and tuns in namespaces of our own: what the kernel gets, what it refuses, and that nothing stays."""

from __future__ import annotations

import random
import select
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether

from bridge.ports.base import Port, PortError, PortGone, ReceivedFrame
from bridge.ports.device import CSUM, OFFLOAD_STEPS, TSO4, DevicePort, open_device
from bridge.ports.namespace import entered
from bridge.ports.netif import DevicePlan, kernel_mac, open_ports
from lab.namespace import Namespace
from lab.private import private_names
from tests.laboratory import needing_the_kernel
from wire.drop import Drop
from wire.gso import GSO_TCPV4, GsoHeader

pytestmark = pytest.mark.lab

OWN_MAC = bytes.fromhex("02000000c802")
WAIT_S = 5.0


@pytest.fixture(scope="module")
def names() -> Iterator[None]:
    with needing_the_kernel(), private_names():
        yield


@pytest.fixture
def host(names: None) -> Iterator[Namespace]:
    """An empty namespace."""
    namespace = Namespace("host")
    yield namespace
    namespace.remove()


def tap(host: Namespace, **settings: object) -> DevicePort:
    plan = {"mtu_bytes": 1500, "netns": host.name, "own_mac": OWN_MAC, **settings}
    return open_ports([DevicePlan("tap0", "tap", "tap0", **plan)])["tap0"]  # type: ignore[arg-type] # by keyword


def next_frame(port: Port, wanted: bytes) -> ReceivedFrame:
    """The next frame that holds some bytes, with a deadline."""
    while select.select([port], [], [], WAIT_S)[0]:
        for frame, gso in port.read_burst(64):
            if wanted in frame:
                return frame, gso
    raise AssertionError("no such frame came")


def test_a_kernel_s_arp_request_comes_out_and_our_answer_makes_its_ping_leave(host: Namespace) -> None:
    port = tap(host)
    host.ip("addr add 192.168.200.3/24 dev tap0")
    ping = host.start_python("-m", "lab.peers", "ping", "192.168.200.2")
    frame, gso = next_frame(port, b"\x08\x06\x00\x01")
    assert gso is None
    asked = Ether(frame)[ARP]
    assert (asked.psrc, asked.pdst) == ("192.168.200.3", "192.168.200.2")
    own = OWN_MAC.hex(":")
    reply = Ether(src=own, dst=frame[6:12].hex(":")) / ARP(
        op=2, hwsrc=own, psrc="192.168.200.2", hwdst=asked.hwsrc, pdst="192.168.200.3"
    )
    assert port.write(bytes(reply), None) is None
    echo = Ether(next_frame(port, b"\x08\x00\x45")[0])
    assert (echo.dst, echo[IP].src, echo[IP].dst) == (own, "192.168.200.3", "192.168.200.2")
    answer = bytearray(bytes(echo[IP]))
    answer[12:20] = answer[16:20] + answer[12:16]
    answer[20] = 0
    check = struct.unpack_from("!H", answer, 22)[0] + 0x0800
    struct.pack_into("!H", answer, 22, (check & 0xFFFF) + (check >> 16))
    port.write(frame[6:12] + OWN_MAC + b"\x08\x00" + answer, None)
    assert '"ok": true' in ping.finish()
    ping.stop()
    port.close()


def test_a_super_frame_comes_out_uncut_with_offsets_from_the_ip_header(host: Namespace) -> None:
    port = open_ports([DevicePlan("tun0", "tun", "tun0", 1500, host.name, address="10.9.0.1/24")])["tun0"]
    assert port.offloads & (CSUM | TSO4) == CSUM | TSO4
    send = "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x'*100, ('10.9.0.2', 9))"
    host.python("-c", send)
    frame, gso = next_frame(port, b"x" * 100)
    assert len(frame) == 128
    assert gso is not None
    assert (gso.partial, gso.gso_type, gso.checksum_start, gso.checksum_offset) == (True, 0, 20, 6)
    port.close()


def test_without_a_virtio_header_super_frames_are_cut_and_checksums_completed(host: Namespace) -> None:
    with entered(host.name):
        plain = open_device("tun0", "tun", "tun0", vnet_header=False)
    assert not plain.vnet_header
    host.ip("addr add 10.9.0.1/24 dev tun0")
    host.ip("link set tun0 up")
    listen = (
        "import socket; s=socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800));"
        "s.bind(('tun0', 0x0800)); print('ready', flush=True)\n"
        "for _ in range(3): print(s.recv(65535).hex(), flush=True)"
    )
    listener = host.start_python("-c", listen)
    assert listener.line() == "ready"
    payload = random.Random(0).randbytes(2500)
    whole = bytearray(bytes(IP(src="10.9.0.2", dst="10.9.0.1", id=7) / TCP(sport=5, dport=6, seq=100) / payload))
    claims = GsoHeader(True, GSO_TCPV4, 40, 1000, 20, 16)
    assert plain.write(whole, claims) is None
    pieces = [IP(bytes.fromhex(listener.line())) for _ in range(3)]
    listener.stop()
    assert b"".join(bytes(piece[TCP].payload) for piece in pieces) == payload
    assert [(piece.id, piece[TCP].seq) for piece in pieces] == [(7, 100), (8, 1100), (9, 2100)]
    for piece in pieces:
        again = IP(bytes(piece))
        del again.chksum, again[TCP].chksum
        assert bytes(again) == bytes(piece)
    plain.close()


def test_reading_without_a_virtio_header_gives_the_frame_as_it_is(host: Namespace) -> None:
    with entered(host.name):
        plain = open_device("tun0", "tun", "tun0", vnet_header=False)
    host.ip("addr add 10.9.0.1/24 dev tun0")
    host.ip("link set tun0 up")
    send = "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x'*100, ('10.9.0.2', 9))"
    host.python("-c", send)
    frame, gso = next_frame(plain, b"x" * 100)
    assert gso is None
    packet = IP(frame)
    check = packet[UDP].chksum
    del packet[UDP].chksum
    assert IP(bytes(packet))[UDP].chksum == check
    plain.close()


def test_what_the_kernel_refuses_is_a_drop_with_its_reason(host: Namespace) -> None:
    port = tap(host)
    assert port.write(b"short", None) is Drop.PORT_MALFORMED
    assert port.write(bytes(60), GsoHeader(True, GSO_TCPV4, 0, 1000, 65000, 16)) is Drop.PORT_MALFORMED
    host.ip("link set tap0 down")
    assert port.write(bytes(60), None) is Drop.PORT_DOWN
    assert port.read_burst(8) == []
    host.ip("link del tap0")
    assert port.write(bytes(60), None) is Drop.PORT_DOWN
    with pytest.raises(PortGone):
        port.read_burst(8)
    port.close()


def test_the_kernel_side_is_set_up_as_planned_and_says_nothing_on_its_own(host: Namespace) -> None:
    host.ip("link add br0 type bridge")
    host.ip("link set br0 up")
    port = tap(host, bridge="br0", mtu_bytes=1400)
    shown = host.ip("-d link show tap0")
    assert f"link/ether {kernel_mac(OWN_MAC).hex(':')}" in shown
    for words in ("mtu 1400", "master br0", "qlen 1000", "addrgenmode none", "persist off", "vnet_hdr on", ",UP"):
        assert words in shown
    assert "inet" not in host.ip("addr show tap0")
    port.close()
    assert "tap0" not in host.ip("link")


def test_tun0_gets_its_address_and_the_default_route_in_halves_and_all_goes_with_it(host: Namespace) -> None:
    plan = DevicePlan("tun0", "tun", "tun0", 1420, host.name, address="192.168.192.211/24", is_default=True)
    port = open_ports([plan])["tun0"]
    assert "inet 192.168.192.211/24" in host.ip("addr show tun0")
    assert "mtu 1420" in host.ip("link show tun0")
    routes = host.ip("route")
    assert "0.0.0.0/1 dev tun0" in routes
    assert "128.0.0.0/1 dev tun0" in routes
    assert "src 192.168.192.211" in host.ip("route get 8.8.8.8")
    port.close()
    assert host.ip("route") == ""


def test_every_obstacle_is_told_before_anything_is_made(host: Namespace) -> None:
    holder = tap(host)
    host.ip("link add other type veth peer name end")
    plans = [
        DevicePlan("tap0", "tap", "fine", 1500, host.name),
        DevicePlan("tap0", "tap", "tap0", 1500, host.name),
        DevicePlan("tap1", "tap", "other", 1500, host.name, bridge="br9"),
        DevicePlan("tap1", "tap", "tap1", 1500, host.name, bridge="other"),
        DevicePlan("tun0", "tun", "tun0", 1500, "nowhere"),
    ]
    with pytest.raises(PortError) as told:
        open_ports(plans)
    own = Path("/proc/self").resolve().name
    for says in (
        "tap0: the interface name tap0 is taken in the namespace 'host' by process ",
        f"process {own} (",
        "tap1: the interface name other is taken in the namespace 'host' by a veth interface",
        "tap1: there is no bridge br9 in the namespace 'host'",
        "tap1: other in the namespace 'host' is no bridge",
        "tun0: there is no network namespace 'nowhere'",
    ):
        assert says in str(told.value)
    assert "fine" not in host.ip("link")
    holder.close()


def test_a_device_that_cannot_be_finished_takes_the_others_with_it(host: Namespace) -> None:
    plans = [DevicePlan("tap0", "tap", "tap0", 1500, host.name), DevicePlan("tap1", "tap", "tap1", 20, host.name)]
    with pytest.raises(PortError, match="tap1: MTU 20 cannot be set on tap1"):
        open_ports(plans)
    links = host.ip("link")
    assert "tap0" not in links
    assert "tap1" not in links


def test_a_name_that_two_plans_want_is_taken_for_the_second(host: Namespace) -> None:
    plans = [DevicePlan("tap0", "tap", "same", 1500, host.name), DevicePlan("tap1", "tap", "same", 1500, host.name)]
    with pytest.raises(PortError, match="same is taken"):
        open_ports(plans)
    assert "same" not in host.ip("link")


def test_the_offloads_are_the_most_that_this_kernel_takes(host: Namespace) -> None:
    port = tap(host)
    assert port.offloads in OFFLOAD_STEPS
    port.close()


def test_the_namespace_that_we_came_from_is_ours_again_whatever_happens(host: Namespace) -> None:
    here = Path("/proc/thread-self/ns/net")
    before = here.readlink()
    with entered(host.name):
        assert here.readlink() != before
    with pytest.raises(ZeroDivisionError), entered(host.name):
        _ = 1 / 0
    assert here.readlink() == before
