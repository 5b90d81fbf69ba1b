"""What the walk wants done: frames to send and events to tell. Values only; the loop carries them out.

Port names: `tap0`, `tap1`, `tun0`, `vpn` (the default node) and `vpn:NODE` (any other node).
"""

from __future__ import annotations

from typing import NamedTuple

from wire.gso import GsoHeader


class Send(NamedTuple):
    """Put a frame on a port: Ethernet where the port is a tap, raw IP elsewhere. The offsets in `gso` count from
    the start of the IP packet."""

    port: str
    frame: bytes | bytearray
    gso: GsoHeader | None


class Event(NamedTuple):
    """Something an operator may want to see. `kind`: `drop` (facts: reason), `link`, `unlink`, `arp` (facts: ip, mac,
    state, change; claimant where two stations claim one address, which is told to the daemon too)."""

    port: str
    kind: str
    facts: dict[str, object]


Effect = Send | Event
