"""Effects: frames to send and events to tell. The walk returns them as values, and the loop carries them out.

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
    """A fact for operators. `kind` is `drop` (facts: reason), `link` or `unlink` (facts: protocol, inside, outside,
    on), or `arp` (facts: ip, mac, state, change; claimant where two stations claim one address, which the daemon hears
    too). The daemon alone hears `ipv6_router` (facts: mac)."""

    port: str
    kind: str
    facts: dict[str, object]


Effect = Send | Event
