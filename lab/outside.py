"""What lies between the two machines that the real tunnel joins: a cable, a bad wire, or a router.

All of them keep the two addresses, so that a configuration fits each: the gateway's machine is `OUTER_GATEWAY`, the
exit `OUTER_EXIT`, and the device is `outer` on both.

    gw 198.51.100.1/24 ==outer========================outer== 198.51.100.2/24 exit      lab.join_outside()

    gw 198.51.100.1/24 ==outer== near [wire] far =====outer== 198.51.100.2/24 exit      lab.join_by_wire(seed)

    gw 198.51.100.1/31 ==outer== .0 [router] .3 ======outer== 198.51.100.2/31 exit      lab.join_by_router(mtu_bytes)

A router's path MTU stands in its routes, both ways: the links of both ends keep 1,500 bytes and know nothing of it, as
behind another's narrow link. A longer packet with DF is answered with ICMP 3/4 from `ROUTER_NEAR` or `ROUTER_FAR`, one
without is fragmented; a router that swallows ICMP loses the first kind in silence. All may change under traffic:

    router = lab.join_by_router(mtu_bytes=1280)
    router.set_mtu(1400)
    router.swallow_icmp()       # and .answer_with_icmp()

A bad wire loses, doubles, reorders and delays what passes (`lab.wire`), or blocks it:

    wire = lab.join_by_wire(seed=7)
    wire.set(loss=0.01, reorder=0.05, displacement=8)
    wire.set(blocked=["there"])             # from the gateway to the exit; "back" is the other way
    assert wire.counts()["there"]["lost"]   # by direction

Each call takes what joined them before away; `lab.join_outside()` leaves whatever is there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bridge.ports.namespace import entered
from lab.namespace import Namespace
from lab.process import Failed, Process

DEVICE = "outer"
OUTER_GATEWAY, OUTER_EXIT = "198.51.100.1", "198.51.100.2"
ROUTER_NEAR, ROUTER_FAR = "198.51.100.0", "198.51.100.3"
_NETWORK = "198.51.100.0/24"


class Cable:
    """Nothing in between."""

    def __init__(self, gw: Namespace, exit_: Namespace) -> None:
        self._gw = gw
        gw.ip(f"link add {DEVICE} type veth peer name {DEVICE} netns {exit_.name}")
        for namespace, address in ((gw, OUTER_GATEWAY), (exit_, OUTER_EXIT)):
            namespace.ip(f"addr add {address}/24 dev {DEVICE}")
            namespace.ip(f"link set {DEVICE} up")

    def remove(self) -> None:
        """Take it away."""
        self._gw.ip(f"link del {DEVICE}")


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


class _Carrier:
    """A process in a namespace of its own that carries frames between its devices `near` and `far`, as badly as it is
    told to (`lab.wire.Faults`)."""

    def __init__(self, name: str) -> None:
        self.namespace = Namespace(name)
        self._process: Process | None = None

    def _lay(self, link: str, end: Namespace, device: str) -> None:
        """A cable from `link` here to `device` at an end."""
        self.namespace.ip(f"link add {link} type veth peer name {device} netns {end.name}")
        self.namespace.ip(f"link set {link} up")
        end.ip(f"link set {device} up")
        # A frame socket would get frames without checksums, and many datagrams in one piece.
        end.switch_offloads_off(device)
        self.namespace.switch_offloads_off(link)

    def _carry(self, seed: int) -> None:
        words = ("-m", "lab.wire", "near", "far", "--seed", str(seed))
        self._process = self.namespace.start_python(*words, listens=True)
        if self._process.line() != "ready":
            raise Failed(f"the wire does not carry\n{self._process.errors()}")

    def set(self, **faults: object) -> dict[str, Any]:
        """Be as bad as `lab.wire.Faults` says, from the next frame on; what is not named is not done. The counts
        so far."""
        return self._say(faults)

    def counts(self) -> dict[str, Any]:
        """What happened to frames so far, by direction: `there` is from the gateway away."""
        return self._say(None)

    def _say(self, document: object) -> dict[str, Any]:
        assert self._process is not None, "it does not carry yet"
        self._process.say(json.dumps(document))
        counts: dict[str, Any] = json.loads(self._process.line())
        return counts

    def remove(self) -> None:
        """Take it away, with both links."""
        if self._process is not None:
            self._process.stop()
        for link in ("near", "far"):
            self.namespace.ip(f"link del {link}")
        self.namespace.remove()


class BadWire(_Carrier):
    """What carries frames between both ends of the tunnel."""

    def __init__(self, gw: Namespace, exit_: Namespace, seed: int) -> None:
        super().__init__("wire")
        for end, link, address in ((gw, "near", OUTER_GATEWAY), (exit_, "far", OUTER_EXIT)):
            self._lay(link, end, DEVICE)
            end.ip(f"addr add {address}/24 dev {DEVICE}")
        self._carry(seed)


class BadCable(_Carrier):
    """What carries frames between the port `port` of a bridge at the gateway's machine and `eth0` of somebody."""

    def __init__(self, gw: Namespace, port: str, bridge: str, end: Namespace, seed: int) -> None:
        super().__init__(f"{port}-cable")
        self._lay("near", gw, port)
        gw.ip(f"link set {port} master {bridge}")
        self._lay("far", end, "eth0")
        self._carry(seed)


Outside = Cable | Router | BadWire
