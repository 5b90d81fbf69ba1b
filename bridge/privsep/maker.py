"""Makes the gateway's devices, in a process of its own, and becomes the warden where one is needed.

The library that sets devices up (pyroute2) takes more memory than the warden and is needed for a moment: this process
has it, hands the descriptors over and ends, or executes `bridge.privsep.warden` in its own place. What the warden needs
from other network namespaces, a pair of sockets each, is opened before: entering one takes a right that it does not
keep.

`python -m bridge.privsep.maker DESCRIPTOR`: a socket on which one order comes, `Order` as JSON in a file, and one
answer goes.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bridge.ports.base import PortError
from bridge.ports.device import DevicePort
from bridge.ports.namespace import entered
from bridge.ports.netif import default_gateway, open_ports
from bridge.ports.plan import DevicePlan
from bridge.ports.rtnetlink import Links
from bridge.privsep.messages import ORDER, as_file, read_back
from bridge.privsep.order import Order, needs_care
from bridge.privsep.privileges import die_with_parent, forbid_core_dumps


def described(port: DevicePort) -> dict[str, Any]:
    """What `DevicePort` is made with, but for its descriptor."""
    return {
        "name": port.name,
        "kind": port.kind,
        "interface": port.interface,
        "vnet_header": port.vnet_header,
        "offloads": port.offloads,
    }


def main(descriptor: int) -> int:
    """Carry one order out."""
    with socket.socket(fileno=descriptor) as channel:
        message, descriptors, _, _ = socket.recv_fds(channel, len(ORDER), 1, socket.MSG_CMSG_CLOEXEC)
        if message != ORDER:
            return 0  # the gateway did not start
        order = Order.unpacked(read_back(descriptors[0]))
        try:
            gateway_before = default_gateway()
            ports = open_ports(order.plans)
            cared = _links_for(order.plans)
        except PortError as error:
            channel.send(json.dumps({"error": str(error)}).encode())
            return 1
        answer = {"gateway_before": gateway_before, "ports": [described(port) for port in ports.values()]}
        socket.send_fds(channel, [json.dumps(answer).encode()], [port.fileno() for port in ports.values()])
        for port in ports.values():
            port.close()
        if cared or order.keeper is not None:
            _become_warden(channel, order, cared)
    return 0


def _links_for(plans: Sequence[DevicePlan]) -> dict[str | None, tuple[Links, list[dict[str, Any]]]]:
    """By namespace: its links, and what `bridge.privsep.warden.Care` needs of each device there."""
    found: dict[str | None, tuple[Links, list[dict[str, Any]]]] = {}
    for plan in filter(needs_care, plans):
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
            }
        )
    return found


def _become_warden(
    channel: socket.socket, order: Order, cared: dict[str | None, tuple[Links, list[dict[str, Any]]]]
) -> None:
    """Execute it, with the sockets as they are: what happens meanwhile waits in them."""
    groups = [{"descriptors": links.descriptors(), "devices": devices} for links, devices in cared.values()]
    words = {
        "channel": channel.fileno(),
        "cares": groups,
        "keeper": None if order.keeper is None else asdict(order.keeper),
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
