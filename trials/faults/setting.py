"""The surroundings of the gateway that a case may choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

End = Literal["ours", "wireguard-go"]
Between = Literal["cable", "wire"]


@dataclass(frozen=True)
class Setting:
    """A case's surroundings. `end` is the tunnel's other end. `outside` lies between it and the gateway's machine,
    `isp` between the bridge `br1` and the ISP router: a plain cable, or a wire that does damage."""

    end: End = "ours"
    outside: Between = "cable"
    isp: Between = "cable"


ORDINARY_SETTING = Setting()
