"""A wire that does damage, in place of a cable of the lab.

    gw 198.51.100.1/24 ==outer== near [wire] far =====outer== 198.51.100.2/24 exit      join_by_wire(lab, seed)

It loses, doubles, reorders and delays frames, or blocks them (`trials.cables.damage`):

    wire = join_by_wire(lab, seed=7)
    wire.set(loss=0.01, reorder=0.05, displacement=8)
    wire.set(blocked=["there"])             # from the gateway to the exit; "back" is the other way
    assert wire.counts()["there"]["lost"]   # by direction
"""

from __future__ import annotations

import json
from typing import Any

from lab.namespace import Namespace
from lab.outside import DEVICE, OUTER_EXIT, OUTER_GATEWAY
from lab.process import CommandFailed, LabProcess
from lab.topology import Lab


class _Carrier:
    """A process in a namespace of its own that carries frames between its devices `near` and `far`, with the damage
    that `set` asks for (`trials.cables.damage.WireDamage`)."""

    def __init__(self, name: str) -> None:
        self.namespace = Namespace(name)
        self._process: LabProcess | None = None

    def _lay(self, link: str, end: Namespace, device: str) -> None:
        """A cable from `link` here to `device` at an end."""
        self.namespace.ip(f"link add {link} type veth peer name {device} netns {end.name}")
        self.namespace.ip(f"link set {link} up")
        end.ip(f"link set {device} up")
        # A frame socket would get frames without checksums, and many datagrams in one piece.
        end.switch_offloads_off(device)
        self.namespace.switch_offloads_off(link)

    def _carry(self, seed: int) -> None:
        words = ("-m", "trials.cables.damage", "near", "far", "--seed", str(seed))
        self._process = self.namespace.start_python(*words, listens=True)
        if self._process.line() != "ready":
            raise CommandFailed(f"the wire does not carry\n{self._process.errors()}")

    def set(self, **damage: object) -> dict[str, Any]:
        """Do this damage, by the fields of `trials.cables.damage.WireDamage`, from the next frame on, and no other.
        Gives the counts so far."""
        return self._say(damage)

    def counts(self) -> dict[str, Any]:
        """Counts of what was done to frames so far, by direction: `there` is from the gateway away."""
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
    """A wire that does damage, between both ends of the tunnel."""

    def __init__(self, gw: Namespace, exit_: Namespace, seed: int) -> None:
        super().__init__("wire")
        for end, link, address in ((gw, "near", OUTER_GATEWAY), (exit_, "far", OUTER_EXIT)):
            self._lay(link, end, DEVICE)
            end.ip(f"addr add {address}/24 dev {DEVICE}")
        self._carry(seed)


class BadCable(_Carrier):
    """A wire that does damage, between the port `port` of a bridge at the gateway's machine and `eth0` of `end`."""

    def __init__(self, gw: Namespace, port: str, bridge: str, end: Namespace, seed: int) -> None:
        super().__init__(f"{port}-cable")
        self._lay("near", gw, port)
        gw.ip(f"link set {port} master {bridge}")
        self._lay("far", end, "eth0")
        self._carry(seed)


def join_by_wire(lab: Lab, seed: int = 1) -> BadWire:
    """Put a wire in place of the cable between both ends of the tunnel; it does no damage until it is told to."""
    return lab.join_by(lambda gw, exit_: BadWire(gw, exit_, seed))


def spoil_isp_cable(lab: Lab, seed: int = 1) -> BadCable:
    """Put a wire in place of the ISP router's cable; it does no damage until it is told to."""
    return lab.replace_isp_cable(lambda gw, isp: BadCable(gw, "isp", "br1", isp, seed))
