"""The sealed packets outside: their headers on the cable, both families, several addresses, and what routers say."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP, IPerror, UDPerror
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from bridge.ports.namespace import entered
from lab.other_end import FAR_PORT, OUR_PORT
from lab.outside import OUTER_EXIT, OUTER_GATEWAY
from lab.topology import TUNNELLED, Lab
from lab.wireguard import FarEnd
from tests.lab.far_end import DEADLINE_S, peer, run, until
from tunnel.ecn import HANDSHAKE_TOS

pytestmark = pytest.mark.lab

OURS_6, FAR_6 = "fd00::1", "fd00::2"
SECOND = "198.51.100.9"
_EVERY_PROTOCOL = 0x0003


@pytest.fixture(scope="module")
def wired(wired: Lab) -> Lab:
    """The same with IPv6 on the cable, and a second address at the gateway."""
    for name, address in {"gw": OURS_6, "exit": FAR_6}.items():
        with entered(name):
            Path("/proc/sys/net/ipv6/conf/outer/disable_ipv6").write_text("0")
        wired.namespaces[name].ip(f"-6 addr add {address}/64 dev outer nodad")
    wired.namespaces["gw"].ip(f"addr add {SECOND}/24 dev outer")
    return wired


def assert_it_carries(lab: Lab) -> None:
    assert lab.client("lan3", "ping", TUNNELLED)["ok"]
    answer = lab.client("lan3", "transfer", TUNNELLED, "10000000", "10000000")
    assert answer["ok"], answer


@pytest.fixture
def ear(wired: Lab) -> Iterator[socket.socket]:
    """The packets that pass the cable, as the far end's device sees them."""
    with entered("exit"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL)) as opened:
        opened.bind(("outer", _EVERY_PROTOCOL))
        opened.setblocking(False)
        yield opened


def sealed(ear: socket.socket, is_wanted: Callable[[Packet], bool]) -> Packet:
    """The next packet of ours on the cable that is wanted; every one of ours is whole and must stay so (DF)."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if select.select([ear], [], [], 1)[0]:
            packet = Ether(ear.recv(1 << 17)).payload
            if IP in packet and packet[IP].src == OUTER_GATEWAY and packet[IP].proto == socket.IPPROTO_UDP:
                assert (packet[IP].flags, packet[IP].frag) == ("DF", 0)
                if is_wanted(packet):
                    return packet
    raise AssertionError("no such packet passed")


def kind(packet: Packet) -> int:
    return bytes(packet[UDP].payload)[0]


ONE_DATAGRAM = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, int(sys.argv[2]))
    s.sendto(b"x" * int(sys.argv[3]), (sys.argv[1], 7777))
"""


def test_w28_g30_outer_headers_on_the_cable(wired: Lab, far: FarEnd, ear: socket.socket) -> None:
    """W28, G30: 60 bytes around a packet, DF, DSCP 0 (handshakes 0x88) whatever the inner DSCP, the inner ECN field."""
    far.start()
    run(wired, far.configuration())
    wired.namespaces["lan3"].python("-c", ONE_DATAGRAM, TUNNELLED, "0", "20")
    assert sealed(ear, lambda packet: kind(packet) == 1)[IP].tos == HANDSHAKE_TOS
    assert sealed(ear, lambda packet: kind(packet) == 4)[IP].tos == 0
    for inner, outer in ((0xB8, 0), (2, 2), (1, 1), (0xB8 | 2, 2), (3, 3)):
        wired.namespaces["lan3"].python("-c", ONE_DATAGRAM, TUNNELLED, str(inner), "1300")
        packet = sealed(ear, lambda packet: kind(packet) == 4 and packet[IP].len == 20 + 8 + 16 + 1328 + 16)
        assert packet[IP].tos == outer  # probes of the path's MTU are longer


def test_w27_a_session_is_not_hurt_by_icmp_unreachables(wired: Lab, far: FarEnd) -> None:
    """W27: forged port and host unreachables, thousands of them, while both ends send."""
    far.start()
    run(wired, far.configuration())
    assert wired.client("lan3", "ping", TUNNELLED)["ok"]
    handshake = far.shown("latest-handshakes")
    mac = wired.namespaces["gw"].ip("-br link show dev outer").split()[2]
    lost = (
        IPerror(src=OUTER_GATEWAY, dst=OUTER_EXIT) / UDPerror(sport=OUR_PORT, dport=FAR_PORT) / Raw(b"\4" + bytes(40))
    )
    frames = [
        bytes(Ether(dst=mac) / IP(src=OUTER_EXIT, dst=OUTER_GATEWAY) / ICMP(type=3, code=code) / lost)
        for code in (0, 1, 2, 3, 13)
    ]
    running = wired.namespaces["lan3"].start_python("-m", "lab.peers", "transfer", TUNNELLED, "20000000", "20000000")
    forged = 0
    try:
        with entered("exit"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
            mouth.bind(("outer", 0))
            while running.is_running and forged < 20_000:
                mouth.send(frames[forged % len(frames)])
                forged += 1
                os.sched_yield()
        assert '"ok": true' in running.finish()
    finally:
        running.stop()
    assert wired.ask("stats")["drops"]["tunnel.outer_icmp"] > 100
    assert far.shown("latest-handshakes") == handshake
    assert peer(wired)["state"] == "up"


def test_we_call_over_ipv6_and_everything_passes(wired: Lab, far: FarEnd) -> None:
    far.start()
    run(wired, far.configuration(endpoint=f"[{FAR_6}]:{FAR_PORT}"))
    assert_it_carries(wired)
    assert peer(wired)["endpoint"] == f"[{FAR_6}]:{FAR_PORT}"
    assert far.shown("endpoints") == f"[{OURS_6}]:{OUR_PORT}"
    words = ("-m", "bridgectl", "peers", "--socket", str(wired.socket_path))
    assert f"[{FAR_6}]:{FAR_PORT}" in wired.namespaces["gw"].python(*words)


def test_a_peer_that_calls_over_ipv6_is_answered_and_may_move_to_ipv4(wired: Lab, far: FarEnd) -> None:
    run(wired, far.configuration(endpoint=None))
    far.start(endpoint=f"[{OURS_6}]:{OUR_PORT}", keepalive=1)
    until(lambda: peer(wired)["endpoint"] == f"[{FAR_6}]:{FAR_PORT}", "it has called")
    assert_it_carries(wired)

    def is_heard_by_ipv4() -> bool:
        # Anything from us that was under way, a probe say, makes it follow us back to IPv6.
        words = ("peer", far.ours.public, "endpoint", f"{OUTER_GATEWAY}:{OUR_PORT}")
        wired.namespaces["exit"].run("wg", "set", "wg0", *words)
        told: str = peer(wired)["endpoint"]
        return told == f"{OUTER_EXIT}:{FAR_PORT}"

    until(is_heard_by_ipv4, "it is heard by IPv4")
    assert_it_carries(wired)


def test_a_caller_is_answered_from_the_address_that_it_called(wired: Lab, far: FarEnd) -> None:
    run(wired, far.configuration(endpoint=None))
    far.start(endpoint=f"{SECOND}:{OUR_PORT}", keepalive=1)
    until(lambda: peer(wired)["state"] == "up", "it has called")
    assert_it_carries(wired)
    assert far.shown("endpoints") == f"{SECOND}:{OUR_PORT}"
    junk = IP(src=OUTER_EXIT, dst=OUTER_GATEWAY) / UDP(sport=FAR_PORT, dport=OUR_PORT) / Raw(b"not from there")
    mac = wired.namespaces["gw"].ip("-br link show dev outer").split()[2]
    before = wired.ask("stats")["drops"]["tunnel.malformed"]
    with entered("exit"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
        mouth.bind(("outer", 0))
        mouth.send(bytes(Ether(dst=mac) / junk))
    until(lambda: wired.ask("stats")["drops"]["tunnel.malformed"] > before, "the forged datagram was read")
    assert wired.client("lan3", "ping", TUNNELLED)["ok"]
    assert far.shown("endpoints") == f"{SECOND}:{OUR_PORT}"


def test_with_the_default_route_in_tun0_endpoints_keep_theirs_and_a_kill_leaves_no_route(
    wired: Lab, far: FarEnd
) -> None:
    """On-link by one device while the default route leads by another; nothing was written for it."""
    gw = wired.namespaces["gw"]
    gw.ip("link add aside type veth peer name nowhere")
    try:
        gw.ip("addr add 10.98.0.1/24 dev aside")
        gw.ip("link set aside up")
        gw.ip("link set nowhere up")
        gw.ip("route add default via 10.98.0.2 dev aside")
        before = gw.ip("route"), gw.ip("-6 route"), gw.ip("rule")
        far.start()
        run(wired, far.configuration())
        assert_it_carries(wired)
        assert wired.client("gw", "ping", TUNNELLED)["ok"]
        assert {line.split(" ", 1)[0] for line in gw.ip("route").splitlines() if line not in before[0]} == {
            "0.0.0.0/1",
            "128.0.0.0/1",
            "192.168.192.0/24",
        }
        assert wired.gateway is not None
        wired.gateway.signal(signal.SIGKILL)
        wired.gateway.wait()
        until(lambda: (gw.ip("route"), gw.ip("-6 route"), gw.ip("rule")) == before, "its routes are gone")
    finally:
        gw.ip("link del aside")
