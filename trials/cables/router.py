"""A router between both ends of the tunnel, whose path may be narrow.

    gw 198.51.100.1/31 ==outer== .0 [router] .3 ======outer== 198.51.100.2/31 exit      join_by_router(lab, mtu_bytes)

The router's path MTU stands in its routes, both ways: the links of both ends keep 1,500 bytes and know nothing of it,
as behind another's narrow link. The router answers a longer packet with DF by ICMP 3/4 from `ROUTER_NEAR` or
`ROUTER_FAR`, and fragments one without DF; a router that swallows ICMP loses the first kind in silence. All may change
under traffic:

    router = join_by_router(lab, mtu_bytes=1280)
    router.set_mtu(1400)
    router.swallow_icmp()       # and .answer_with_icmp()
"""

from __future__ import annotations

from pathlib import Path

from bridge.ports.namespace import entered
from lab.namespace import Namespace
from lab.outside import DEVICE, OUTER_EXIT, OUTER_GATEWAY
from lab.topology import Lab

ROUTER_NEAR, ROUTER_FAR = "198.51.100.0", "198.51.100.3"
_NETWORK = "198.51.100.0/24"


class Router:
    """A router that forwards between both ends; `namespace` is its own."""

    def __init__(self, gw: Namespace, exit_: Namespace, mtu_bytes: int, *, swallows_icmp: bool) -> None:
        self.namespace = Namespace("router")
        self._ends = ((gw, "near", ROUTER_NEAR, OUTER_GATEWAY), (exit_, "far", ROUTER_FAR, OUTER_EXIT))
        for end, link, ours, theirs in self._ends:
            self.namespace.ip(f"link add {link} type veth peer name {DEVICE} netns {end.name}")
            self.namespace.ip(f"addr add {ours}/31 dev {link}")
            self.namespace.ip(f"link set {link} up")
            end.ip(f"addr add {theirs}/31 dev {DEVICE}")
            end.ip(f"link set {DEVICE} up")
            end.ip(f"route add {_NETWORK} via {ours} dev {DEVICE}")
        with entered(self.namespace.name):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        self._swallows = False
        self.set_mtu(mtu_bytes)
        if swallows_icmp:
            self.swallow_icmp()

    def set_mtu(self, mtu_bytes: int) -> None:
        """The longest packet that passes, both ways, from now on."""
        for _, link, _, theirs in self._ends:
            self.namespace.ip(f"route replace {theirs}/32 dev {link} mtu lock {mtu_bytes}")

    def swallow_icmp(self) -> None:
        """Say nothing any more about what does not pass."""
        if not self._swallows:
            self.namespace.ip("rule add priority 1 iif lo ipproto icmp blackhole")
            self._swallows = True

    def answer_with_icmp(self) -> None:
        """Say again what does not pass."""
        if self._swallows:
            self.namespace.ip("rule del priority 1")
            self._swallows = False

    def remove(self) -> None:
        """Take it away, with both links."""
        for _, link, _, _ in self._ends:
            self.namespace.ip(f"link del {link}")
        self.namespace.remove()


def join_by_router(lab: Lab, mtu_bytes: int = 1500, *, swallows_icmp: bool = False) -> Router:
    """Put a router in place of the cable; nothing longer than `mtu_bytes` passes it."""
    return lab.join_by(lambda gw, exit_: Router(gw, exit_, mtu_bytes, swallows_icmp=swallows_icmp))
