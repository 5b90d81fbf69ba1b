"""The maker, the helper's first program: it makes the gateway's devices, and becomes the warden where one is needed.

The library that sets devices up (pyroute2) takes more memory than the warden, and is needed for a moment only. So this
program loads it, hands the descriptors over, and ends or executes `bridge.privsep.warden` in its own place. For each
other network namespace it opens a pair of sockets before, because entering a namespace takes a right that the warden
does not keep.

`python -m bridge.privsep.maker DESCRIPTOR`: a socket; one order comes in (`Order` as JSON in a file), one answer goes
out.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from bridge.ports import host_routes
from bridge.ports.base import PortError
from bridge.ports.device import DevicePort
from bridge.ports.namespace import entered
from bridge.ports.netif import default_gateway, open_ports
from bridge.ports.plan import DevicePlan
from bridge.ports.rtnetlink import Links
from bridge.privsep.messages import ORDER, as_file, read_back
from bridge.privsep.order import Order, needs_warden
from bridge.privsep.privileges import die_with_parent, forbid_core_dumps


def described(port: DevicePort) -> dict[str, Any]:
    """The arguments of `DevicePort`, but for the descriptor."""
    return {
        "name": port.name,
        "kind": port.kind,
        "interface": port.interface,
        "vnet_header": port.vnet_header,
        "offloads": port.offloads,
    }


def main(descriptor: int) -> int:
    """Carry one order out; the exit code."""
    with socket.socket(fileno=descriptor) as channel:
        message, descriptors, _, _ = socket.recv_fds(channel, len(ORDER), 1, socket.MSG_CMSG_CLOEXEC)
        if message != ORDER:
            return 0  # the gateway did not start
        order = Order.unpacked(read_back(descriptors[0]))
        try:
            gateway_before = default_gateway()
            with suppress(OSError):  # a kernel that does not answer has other obstacles to tell
                host_routes.sweep()
            ports = open_ports(order.plans)
            watched = _links_for(order.plans)
        except PortError as error:
            channel.send(json.dumps({"error": str(error)}).encode())
            return 1
        answer = {"gateway_before": gateway_before, "ports": [described(port) for port in ports.values()]}
        socket.send_fds(channel, [json.dumps(answer).encode()], [port.fileno() for port in ports.values()])
        for port in ports.values():
            port.close()
        if watched or order.root_duties is not None:
            _become_warden(channel, order, watched)
    return 0


def _links_for(plans: Sequence[DevicePlan]) -> dict[str | None, tuple[Links, list[dict[str, Any]]]]:
    """By namespace: its sockets, and the facts of each device there for `bridge.privsep.warden.WatchedDevice`."""
    found: dict[str | None, tuple[Links, list[dict[str, Any]]]] = {}
    for plan in filter(needs_warden, plans):
        if plan.netns not in found:
            with entered(plan.netns):
                found[plan.netns] = (Links(), [])
        links, devices = found[plan.netns]
        devices.append(
            {
                "port": plan.port,
                "interface": plan.interface,
                "index": links.index_of(plan.interface),
                "bridge": plan.bridge,
                "bridge_index": links.index_of(plan.bridge) if plan.bridge else 0,
                "is_default": plan.is_default,
                "leads_beside": plan.is_default and plan.netns is None,
            }
        )
    return found


def _become_warden(
    channel: socket.socket, order: Order, watched: dict[str | None, tuple[Links, list[dict[str, Any]]]]
) -> None:
    """Execute the warden, with the sockets as they are: news that comes meanwhile waits in them."""
    groups = [{"descriptors": links.descriptors(), "devices": devices} for links, devices in watched.values()]
    words = {
        "channel": channel.fileno(),
        "devices": groups,
        "root_duties": None if order.root_duties is None else asdict(order.root_duties),
        "is_confined": order.is_confined,
    }
    told = as_file(json.dumps(words).encode())
    for descriptor in (told, channel.fileno(), *(one for group in groups for one in group["descriptors"])):
        os.set_inheritable(int(descriptor), True)  # type: ignore[call-overload] # descriptors are integers
    os.execv(sys.executable, [sys.executable, "-S", "-P", "-m", "bridge.privsep.warden", str(told)])


if __name__ == "__main__":
    forbid_core_dumps()
    die_with_parent()
    sys.exit(main(int(sys.argv[1])))
