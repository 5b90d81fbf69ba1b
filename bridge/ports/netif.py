"""The kernel side of a device: MTU, MAC, bridge, namespace, addresses, routes (by rtnetlink).

The kernel never owns tap0's or tap1's address: these belong to the gateway, behind the tap. So that it does not chatter
there on its own, a device gets no IPv6 link-local address (RFC 4862 5.3; `addrgenmode none`). The kernel's MAC address
for a tap begins with fe: it differs from the gateway's, and a Linux bridge, which takes the lowest address of its
ports for itself, never takes this one.

All of it belongs to the device and goes when its descriptor is closed, also when the process was killed. The gateway
does not import this: `bridge.privsep.maker` does it in a process of its own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from bridge.ports.base import PortError
from bridge.ports.device import DevicePort, open_device
from bridge.ports.namespace import entered
from bridge.ports.plan import DevicePlan
from bridge.ports.rtnetlink import HALVES

QUEUE_FRAMES = 1000
"""Frames that the kernel keeps for us (txqueuelen). A tap drops when it is full: 100 loses, 5000 was slower."""

_IN6_ADDR_GEN_MODE_NONE = 1
_RT_SCOPE_LINK = 253


def open_ports(plans: Iterable[DevicePlan]) -> dict[str, DevicePort]:
    """Make all devices and bring them up, or none: `PortError` lists everything that stands in the way."""
    plans = list(plans)
    obstacles = [obstacle for plan in plans for obstacle in _obstacles(plan)]
    if obstacles:
        raise PortError("\n".join(obstacles))
    with ExitStack() as opened:
        ports: dict[str, DevicePort] = {}
        for plan in plans:
            with entered(plan.netns):
                port = open_device(plan.port, plan.kind, plan.interface)
                opened.callback(port.close)
                _configure(plan)
            ports[plan.port] = port
        opened.pop_all()
        return ports


def kernel_mac(own_mac: bytes) -> bytes:
    """The kernel side's address of a tap whose other side is `own_mac`: locally administered, high, and another one."""
    first = 0xFE if own_mac[0] != 0xFE else 0xFA
    return bytes([first]) + own_mac[1:]


def default_gateway() -> str | None:
    """The next hop of the kernel's default route in the current namespace, the one with the lowest metric."""
    with _netlink() as ip:
        hops = [
            (route.get_attr("RTA_PRIORITY") or 0, route.get_attr("RTA_GATEWAY"))
            for route in ip.get_default_routes(family=2)
        ]
    return min((hop for hop in hops if hop[1]), default=(0, None))[1]


def _obstacles(plan: DevicePlan) -> Iterator[str]:
    """The obstacles that are known before anything is made."""
    try:
        with entered(plan.netns), _netlink() as ip:
            where = f" in the namespace {plan.netns!r}" if plan.netns else ""
            if ip.link_lookup(ifname=plan.interface):
                yield f"{plan.port}: the interface name {plan.interface} is taken{where}{_holder(ip, plan.interface)}"
            if plan.bridge and not ip.link_lookup(ifname=plan.bridge):
                yield (
                    f"{plan.port}: there is no bridge {plan.bridge}{where}; "
                    f"`ip link add {plan.bridge} type bridge` makes one"
                )
            elif plan.bridge and _kind_of(ip, plan.bridge) != "bridge":
                yield f"{plan.port}: {plan.bridge}{where} is no bridge"
    except PortError as error:
        yield f"{plan.port}: {error}"


def _configure(plan: DevicePlan) -> None:
    """Set up the device that was just made, in the current namespace."""
    with _netlink() as ip:
        index = ip.link_lookup(ifname=plan.interface)[0]
        what = f"MTU {plan.mtu_bytes}"
        try:
            ip.link("set", index=index, mtu=plan.mtu_bytes, txqlen=QUEUE_FRAMES)
            if plan.own_mac is not None:
                what = "MAC address"
                ip.link("set", index=index, address=kernel_mac(plan.own_mac).hex(":"))
            _silence_ipv6(ip, index)
            if plan.bridge is not None:
                what = f"bridge {plan.bridge}"
                ip.link("set", index=index, master=ip.link_lookup(ifname=plan.bridge)[0])
            if plan.address is not None:
                what = f"address {plan.address}"
                address, _, length = plan.address.partition("/")
                ip.addr("add", index=index, address=address, prefixlen=int(length))
            what = "state up"
            ip.link("set", index=index, state="up")
            if plan.is_default:
                for half in HALVES:
                    what = f"route {half}"
                    ip.route("add", dst=half, oif=index, scope=_RT_SCOPE_LINK)
        except NetlinkError as error:
            why = os.strerror(error.code)
            raise PortError(f"{plan.port}: {what} cannot be set on {plan.interface}: {why}") from error


def _silence_ipv6(ip: IPRoute, index: int) -> None:
    """No link-local address; a kernel without IPv6 refuses the question and has nothing to silence."""
    mode = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _IN6_ADDR_GEN_MODE_NONE)]})]}
    try:
        ip.link("set", index=index, IFLA_AF_SPEC=mode)
    except NetlinkError as error:
        if error.code not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL):
            raise


@contextmanager
def _netlink() -> Iterator[IPRoute]:
    with IPRoute() as ip:
        yield ip


def _kind_of(ip: IPRoute, interface: str) -> str | None:
    """`bridge`, `veth`, `tun`, ... or None for a physical interface."""
    link = ip.link("get", ifname=interface)[0]
    info = link.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info is not None else None
    return str(kind) if kind is not None else None


def _holder(ip: IPRoute, interface: str) -> str:
    """The holder of the interface, in words: the process that holds a tap or tun of that name open, as far as we may
    look. Where the same name is held in several namespaces, it is one of these processes."""
    kind = _kind_of(ip, interface)
    if kind != "tun":
        return f" by {'a ' + kind if kind else 'another'} interface"
    holders = []
    for pid in sorted(set(_tun_holders(interface))):
        with suppress(OSError):
            holders.append(f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})")
    if holders:
        return f" by {' or '.join(holders)}"
    return " by a tap or tun that no visible process holds; `ip link del` removes a persistent one"


def _tun_holders(interface: str) -> Iterator[int]:
    """Processes with a descriptor of /dev/net/tun that is attached to `interface` (proc(5): fdinfo, `iff`)."""
    attached = f"\niff:\t{interface}\n"
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if not os.readlink(descriptor).endswith("/net/tun"):
                continue
            process = descriptor.parent.parent
            if attached in (process / "fdinfo" / descriptor.name).read_text():
                yield int(process.name)
        except OSError:  # it was closed meanwhile, or is not ours to look at
            continue
