"""The cable between the two machines that the real tunnel joins, and the place of anything else that may lie there.

    gw 198.51.100.1/24 ==outer========================outer== 198.51.100.2/24 exit      lab.join_outside()

`lab.join_by(make)` puts another thing in its place, which keeps the two addresses and the device name `outer` at both
ends, so that a configuration fits each (`trials.cables` has a router and a wire that does damage). Each call of it
takes away the thing that joined both ends before; `lab.join_outside()` leaves whatever is there.
"""

from __future__ import annotations

from typing import Protocol

from lab.namespace import Namespace

DEVICE = "outer"
OUTER_GATEWAY, OUTER_EXIT = "198.51.100.1", "198.51.100.2"


class Between(Protocol):
    """Anything that joins two machines of the lab and can be taken away again."""

    def remove(self) -> None:
        """Take it away, with its links."""


class Cable:
    """A plain cable."""

    def __init__(self, gw: Namespace, exit_: Namespace) -> None:
        self._gw = gw
        gw.ip(f"link add {DEVICE} type veth peer name {DEVICE} netns {exit_.name}")
        for namespace, address in ((gw, OUTER_GATEWAY), (exit_, OUTER_EXIT)):
            namespace.ip(f"addr add {address}/24 dev {DEVICE}")
            namespace.ip(f"link set {DEVICE} up")

    def remove(self) -> None:
        """Take it away."""
        self._gw.ip(f"link del {DEVICE}")
