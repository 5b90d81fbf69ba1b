"""The surroundings of the gateway that a case may choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

End = Literal["ours", "wireguard-go"]
Between = Literal["cable", "wire"]


@dataclass(frozen=True)
class Setting:
    """A case's surroundings. `end` is the tunnel's other end. `outside` lies between it and the gateway's machine,
    `isp` between the bridge `br1` and the ISP router: a plain cable, or a wire that does damage.
    `is_leased`: the ISP router lends tap1 its address."""

    end: End = "ours"
    outside: Between = "cable"
    isp: Between = "cable"
    is_leased: bool = False


ORDINARY_SETTING = Setting()
