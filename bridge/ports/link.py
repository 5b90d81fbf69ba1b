"""What the kernel side of a device looks like: MTU, MAC, bridge, namespace, addresses, routes (by rtnetlink).

The kernel never owns tap0's or tap1's address: these belong to the gateway, behind the tap. So that it does not chatter
there on its own, a device gets no IPv6 link-local address (RFC 4862 5.3; `addrgenmode none`). The kernel's MAC address
for a tap begins with fe: it differs from the gateway's, and a Linux bridge, which takes the lowest address of its
ports for itself, never takes this one.

All of it belongs to the device and goes when its descriptor is closed, also when the process was killed.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from bridge.ports import rtnetlink
from bridge.ports.base import Kind, PortError
from bridge.ports.device import DevicePort, open_device
from bridge.ports.namespace import entered
from bridge.ports.rtnetlink import NUMBER, Rtnetlink, attribute, attributes

QUEUE_FRAMES = 1000
"""Frames that the kernel keeps for us (txqueuelen). A tap drops when it is full: 100 loses, 5000 was slower."""

HALVES = ("0.0.0.0/1", "128.0.0.0/1")
"""Together a default route that beats the kernel's own and vanishes with the device."""

_IFF_UP = 1
_IFLA_ADDRESS, _IFLA_MTU, _IFLA_MASTER, _IFLA_TXQLEN, _IFLA_LINKINFO, _IFLA_AF_SPEC = 1, 4, 10, 13, 18, 26
_IFLA_INFO_KIND = 1
_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE = 8, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY = 1, 4, 5, 6
_RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_LINK, _RTN_UNICAST = 254, 4, 253, 1


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """One device as the configuration wants it.

    `port`: the walk's name of it; `interface`: the kernel's. `own_mac`: the gateway's address on a tap, which the
    kernel must not have. `address`: `192.168.192.211/24` for a device whose address the kernel owns. `is_default`: it
    gets the routes `HALVES`.
    """

    port: str
    kind: Kind
    interface: str
    mtu_bytes: int
    netns: str | None = None
    bridge: str | None = None
    own_mac: bytes | None = None
    address: str | None = None
    is_default: bool = False


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
    with Rtnetlink() as netlink:
        routes = netlink.all(rtnetlink.GETROUTE, rtnetlink.ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0))
    hops: list[tuple[int, bytes]] = []
    for route in routes:
        _, length, _, _, table, _, _, _, _ = rtnetlink.ROUTE.unpack_from(route, rtnetlink.MESSAGE.size)
        found = dict(attributes(route, rtnetlink.MESSAGE.size + rtnetlink.ROUTE.size))
        if not length and table == _RT_TABLE_MAIN and _RTA_GATEWAY in found:
            metric = NUMBER.unpack(found[_RTA_PRIORITY])[0] if _RTA_PRIORITY in found else 0
            hops.append((metric, found[_RTA_GATEWAY]))
    return socket.inet_ntoa(min(hops)[1]) if hops else None


def _obstacles(plan: DevicePlan) -> Iterator[str]:
    """What is already known to stand in the way, before anything is touched."""
    try:
        with entered(plan.netns):
            where = f" in the namespace {plan.netns!r}" if plan.netns else ""
            if _index(plan.interface):
                yield f"{plan.port}: the interface name {plan.interface} is taken{where}{_holder(plan.interface)}"
            if plan.bridge and not _index(plan.bridge):
                yield (
                    f"{plan.port}: there is no bridge {plan.bridge}{where}; "
                    f"`ip link add {plan.bridge} type bridge` makes one"
                )
            elif plan.bridge and _kind_of(plan.bridge) != "bridge":
                yield f"{plan.port}: {plan.bridge}{where} is no bridge"
    except PortError as error:
        yield f"{plan.port}: {error}"


def _configure(plan: DevicePlan) -> None:
    """Set up the device that was just made, in the current namespace."""
    index = _index(plan.interface)
    what = f"MTU {plan.mtu_bytes}"
    try:
        with Rtnetlink() as netlink:
            _set_link(netlink, index, _number(_IFLA_MTU, plan.mtu_bytes) + _number(_IFLA_TXQLEN, QUEUE_FRAMES))
            if plan.own_mac is not None:
                what = "MAC address"
                _set_link(netlink, index, attribute(_IFLA_ADDRESS, kernel_mac(plan.own_mac)))
            _silence_ipv6(netlink, index)
            if plan.bridge is not None:
                what = f"bridge {plan.bridge}"
                _set_link(netlink, index, _number(_IFLA_MASTER, _index(plan.bridge)))
            if plan.address is not None:
                what = f"address {plan.address}"
                _add_address(netlink, index, IPv4Interface(plan.address))
            what = "state up"
            _set_link(netlink, index, b"", flags=_IFF_UP)
            if plan.is_default:
                for half in HALVES:
                    what = f"route {half}"
                    _add_route(netlink, index, IPv4Network(half))
    except OSError as error:
        why = error.strerror or str(error)
        raise PortError(f"{plan.port}: {what} cannot be set on {plan.interface}: {why}") from error


def _set_link(netlink: Rtnetlink, index: int, changed: bytes, *, flags: int = 0) -> None:
    netlink.change(rtnetlink.NEWLINK, rtnetlink.LINK.pack(socket.AF_UNSPEC, 0, index, flags, flags) + changed)


def _add_address(netlink: Rtnetlink, index: int, address: IPv4Interface) -> None:
    body = rtnetlink.ADDRESS.pack(socket.AF_INET, address.network.prefixlen, 0, 0, index)
    body += attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)
    netlink.change(rtnetlink.NEWADDR, body, rtnetlink.NEW)


def _add_route(netlink: Rtnetlink, index: int, network: IPv4Network) -> None:
    body = rtnetlink.ROUTE.pack(
        socket.AF_INET, network.prefixlen, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_LINK, _RTN_UNICAST, 0
    )
    body += attribute(_RTA_DST, network.network_address.packed) + _number(_RTA_OIF, index)
    netlink.change(rtnetlink.NEWROUTE, body, rtnetlink.NEW)


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, NUMBER.pack(value))


def _silence_ipv6(netlink: Rtnetlink, index: int) -> None:
    """No link-local address; a kernel without IPv6 refuses the question and has nothing to silence."""
    mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_IN6_ADDR_GEN_MODE_NONE]))
    try:
        _set_link(netlink, index, attribute(_IFLA_AF_SPEC, attribute(socket.AF_INET6, mode)))
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _index(interface: str) -> int:
    """The kernel's number of an interface in the current namespace; 0 where there is none."""
    with suppress(OSError):
        return socket.if_nametoindex(interface)
    return 0


def _kind_of(interface: str) -> str | None:
    """`bridge`, `veth`, `tun`, ... or None for a physical interface."""
    with Rtnetlink() as netlink:
        link = netlink.ask(rtnetlink.GETLINK, rtnetlink.LINK.pack(socket.AF_UNSPEC, 0, _index(interface), 0, 0))
    told = dict(attributes(link, rtnetlink.MESSAGE.size + rtnetlink.LINK.size)).get(_IFLA_LINKINFO, b"")
    kind = dict(attributes(told, 0)).get(_IFLA_INFO_KIND)
    return kind.rstrip(b"\0").decode() if kind is not None else None


def _holder(interface: str) -> str:
    """Who has the interface: the process that holds a tap or tun of that name open, as far as we may look. Where the
    same name is held in several namespaces it is one of these processes."""
    kind = _kind_of(interface)
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
