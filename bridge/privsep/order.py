"""The order of the gateway to its helper: the devices to make, and the duties that remain afterwards. The maker imports
this too, so it imports little."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from bridge.ports.plan import DevicePlan


def needs_warden(plan: DevicePlan) -> bool:
    """True where others can undo the set-up of a device without removing the device: the warden restores it then."""
    return plan.bridge is not None or plan.is_default


@dataclass(frozen=True)
class RootDuties:
    """The duties of the warden that only root can do, for a gateway that became another user.

    `socket`: the path of the control socket; `made`: folders that were made for it, to be removed with it. `folders`
    and `names`: folders and single files that a reload reads. All paths are absolute.
    """

    socket: str
    made: list[str]
    folders: list[str]
    names: list[str]


@dataclass(frozen=True)
class Order:
    """`plans`: the devices to make. `root_duties`: None where the gateway stays root. `is_confined`: the warden
    confines itself."""

    plans: list[DevicePlan]
    root_duties: RootDuties | None
    is_confined: bool

    def packed(self) -> bytes:
        """The order as JSON."""
        order = asdict(self)
        for plan in order["plans"]:
            plan["own_mac"] = None if plan["own_mac"] is None else plan["own_mac"].hex()
        return json.dumps(order).encode()

    @classmethod
    def unpacked(cls, message: bytes) -> Order:
        """The order that was packed."""
        order = json.loads(message)
        for plan in order["plans"]:
            plan["own_mac"] = None if plan["own_mac"] is None else bytes.fromhex(plan["own_mac"])
        root_duties = None if order["root_duties"] is None else RootDuties(**order["root_duties"])
        return cls([DevicePlan(**plan) for plan in order["plans"]], root_duties, order["is_confined"])

    @property
    def leaves_warden(self) -> bool:
        """True where duties remain, so that the helper stays as the warden."""
        return self.root_duties is not None or any(map(needs_warden, self.plans))
