"""What the gateway orders of its companion: the devices, and what is to be kept in order afterwards. The companion
imports this too, so it imports little."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from bridge.ports.plan import DevicePlan


def needs_care(plan: DevicePlan) -> bool:
    """Whether others can undo what was set up, without removing the device."""
    return plan.bridge is not None or plan.is_default


@dataclass(frozen=True)
class Keeper:
    """What only root can do for a gateway that became another user; see `bridge.privsep.warden`. `socket`: the control
    socket; `made`: folders that were made for it; `folders`, `names`: what a reload reads."""

    socket: str
    made: list[str]
    folders: list[str]
    names: list[str]


@dataclass(frozen=True)
class Order:
    """What is to be made, and kept afterwards. `is_confined`: whether the warden confines itself."""

    plans: list[DevicePlan]
    keeper: Keeper | None
    is_confined: bool

    def packed(self) -> bytes:
        """As JSON."""
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
        keeper = None if order["keeper"] is None else Keeper(**order["keeper"])
        return cls([DevicePlan(**plan) for plan in order["plans"]], keeper, order["is_confined"])

    @property
    def leaves_warden(self) -> bool:
        """Whether anything is to be kept, so that the process stays."""
        return self.keeper is not None or any(map(needs_care, self.plans))
