"""The kernel as a NAT between two devices of ours: what comes out where for a frame that goes in.

A namespace with a tap for the LAN and, towards the world, a tap with the ISP router behind it (egress O) or a tun
(egress V): the addresses, MAC addresses and MTUs of the checklist's gateway, `ip_forward`, and an nftables masquerade.
Behind every frame a marker is sent both ways; once both have come out nothing of the frame is still to come, so nobody
waits for what does not come.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import which

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from bridge.ports.device import DevicePort, open_device
from bridge.ports.namespace import entered
from lab.namespace import Namespace
from lab.private import Impossible
from lab.process import CommandFailed
from tests.conformance.harness import (
    ADDRESS_L,
    ADDRESS_O,
    ADDRESS_V,
    MAC_A,
    MAC_B,
    MAC_ISP,
    MAC_L,
    MAC_O,
    A,
    B,
)
from wire.drop import Drop

WAIT_S = 10.0
"""How long a marker may take: on a machine that does nothing else it is microseconds."""
_MARKER_HOST, _MARKER_MAC, _MARKER_REMOTE = "192.168.200.250", "02:aa:00:00:00:fa", "198.18.0.250"
_MARKER_PORT = 65_000
_MARK = b"nothing of what was before is still to come"

_SETTINGS = {
    "net/ipv4/icmp_echo_ignore_broadcasts": "1",
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv4/icmp_ratemask": "0",  # G11: limits are compared by nobody
    "net/ipv4/icmp_msgs_per_sec": "1000000",
    "net/ipv4/icmp_msgs_burst": "1000000",
    "net/ipv4/ipfrag_time": "15",
    "net/netfilter/nf_conntrack_checksum": "0",  # P5: else a packet with a wrong transport checksum has no connection
    "net/netfilter/nf_conntrack_tcp_be_liberal": "1",  # T2: else one outside of the window has none
}
_WORLD = ("8.0.0.0/8", "93.0.0.0/8", "198.0.0.0/8", "203.0.0.0/8")
"""No default route: beside these the world has none, as private ranges have none in the gateway's table."""
_NETLINK_NETFILTER = 12
# linux/netlink.h, nfnetlink.h: REQUEST and ACK; ctnetlink's DELETE without a tuple: every connection of IPv4.
_FLUSH = struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 1 | 4, 1, 0, socket.AF_INET, 0, 0)
# As somebody would write it who has a LAN: nothing new from outside, and of its own services only echo is open there.
_RULES = """
add table ip nat
add chain ip nat out { type nat hook postrouting priority srcnat; }
add rule ip nat out oifname "world" masquerade
add chain ip nat forward { type filter hook forward priority filter; }
add rule ip nat forward ct state invalid drop
add rule ip nat forward iifname "world" ct state new drop
add chain ip nat input { type filter hook input priority filter; }
add rule ip nat input iifname "world" icmp type echo-request accept
add rule ip nat input iifname "world" drop
add rule ip nat forward tcp flags & (syn|rst) == syn tcp option maxseg size set rt mtu
"""


class KernelNat:
    """One such namespace. `egress`: "O" or "V". `mtu` is that of the egress."""

    def __init__(self, egress: str, *, mtu: int) -> None:
        self.egress = egress
        self.X = ADDRESS_O if egress == "O" else ADDRESS_V
        self._namespace = Namespace(f"nat{egress}{mtu}")
        self._ports: dict[str, DevicePort] = {}
        ports = UDP(sport=_MARKER_PORT, dport=_MARKER_PORT) / _MARK
        self._going = bytes(Ether(src=_MARKER_MAC, dst=MAC_L) / IP(src=_MARKER_HOST, dst=_MARKER_REMOTE) / ports)
        link = bytes(Ether(src=MAC_ISP, dst=MAC_O, type=0x0800)) if egress == "O" else b""
        self._coming = link + bytes(IP(src=_MARKER_REMOTE, dst=self.X) / ports)
        try:
            self._build(mtu)
        except BaseException:
            self.close()
            raise

    def _build(self, mtu: int) -> None:
        with entered(self._namespace.name):
            self._ports["L"] = open_device("tap0", "tap", "lan", vnet_header=False)
            kind = "tap" if self.egress == "O" else "tun"
            self._ports[self.egress] = open_device("world", kind, "world", vnet_header=False)
        lines = [
            f"link set lan address {MAC_L} up",
            f"addr add {ADDRESS_L}/24 dev lan",
            *(
                f"neigh replace {address} lladdr {mac} dev lan nud permanent"
                for address, mac in ((A, MAC_A), (B, MAC_B), (_MARKER_HOST, _MARKER_MAC))
            ),
        ]
        if self.egress == "O":
            lines += [
                f"link set world address {MAC_O} mtu {mtu} up",
                f"addr add {ADDRESS_O}/24 dev world",
                f"neigh replace 192.168.1.1 lladdr {MAC_ISP} dev world nud permanent",
                *(f"route add {prefix} via 192.168.1.1" for prefix in _WORLD),
            ]
        else:
            lines += [
                f"link set world mtu {mtu} up",
                f"addr add {ADDRESS_V}/32 dev world",
                *(f"route add {prefix} dev world" for prefix in _WORLD),
            ]
        for line in lines:
            self._namespace.ip(line)
        try:
            self._namespace.run(demand_nft(), _RULES)
        except CommandFailed as error:
            raise Impossible(f"this kernel has no nftables masquerade: {error}") from error
        with entered(self._namespace.name):
            for name, value in _SETTINGS.items():  # behind the rules: they are what loads the connection tracking
                path = Path("/proc/sys") / name
                if path.exists():
                    path.write_text(value)
            self._conntrack = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)

    def forget(self) -> None:
        """End every connection that it knows: the next frame meets a fresh NAT."""
        self._conntrack.send(_FLUSH)
        answer = self._conntrack.recv(4096)
        (error,) = struct.unpack_from("=i", answer, 16)
        assert error == 0, os.strerror(-error)

    def exchange(self, port: str, frame: bytes) -> list[tuple[str, bytes]]:
        """Put a frame in at a port letter; all that comes out because of it, as (port letter, frame), L's first."""
        self._write(port, frame)
        self._write("L", self._going)
        found = self._read_up_to_the_mark(self.egress)
        self._write(self.egress, self._coming)
        return self._read_up_to_the_mark("L") + found

    def _write(self, port: str, frame: bytes) -> None:
        # The driver itself refuses what is shorter than a header, and on a tun what says another version than 4 or 6.
        assert self._ports[port].write(frame, None) in (None, Drop.PORT_MALFORMED)

    def _read_up_to_the_mark(self, port: str) -> list[tuple[str, bytes]]:
        device = self._ports[port]
        deadline = time.monotonic() + WAIT_S
        found: list[tuple[str, bytes]] = []
        while True:
            for frame, _ in device.read_burst(64):
                if bytes(frame).endswith(_MARK):
                    return found
                found.append((port, bytes(frame)))
            left_s = deadline - time.monotonic()
            assert left_s > 0, "the marker did not come out of the kernel"
            select.select([device], [], [], left_s)

    def close(self) -> None:
        """Take devices and namespace away."""
        if hasattr(self, "_conntrack"):
            self._conntrack.close()
        for device in self._ports.values():
            device.close()
        self._namespace.remove()


def demand_nft() -> str:
    """The path of nft; `Impossible` where the kernel cannot be told to be a NAT."""
    found = which("nft", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin")))
    if found is None:
        raise Impossible("nft is missing (apt-get install nftables)")
    return found


@contextmanager
def kernel_nats(*wanted: tuple[str, int]) -> Iterator[Sequence[KernelNat]]:
    """Kernels by (egress, MTU); gone at the end."""
    demand_nft()
    made: list[KernelNat] = []
    try:
        for egress, mtu in wanted:
            made.append(KernelNat(egress, mtu=mtu))
        yield made
    finally:
        for kernel in made:
            kernel.close()
