"""The account of a burst: frames that were repeated, refused or dropped without a walk, by port.

Values only, no device: `bridge.walk.fast_path` adds them to the gateway's counters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from wire.drop import Drop


class Counted(NamedTuple):
    """One port's frames since the last account. `rx`: came in and were repeated or dropped; `tx`: left for them.
    `full`, `down`, `malformed`: the device of the port refused them. `policed`, `no_link`: came in and were dropped
    without a walk, over their sender's share or for an outside port that nobody has."""

    port: int
    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    full: int
    down: int
    malformed: int
    policed: int = 0
    no_link: int = 0


def refusals(counted: Counted) -> Iterable[tuple[Drop, int]]:
    """Frames that a device refused: (reason, number), without zeros."""
    reasons = (
        (Drop.PORT_FULL, counted.full),
        (Drop.PORT_DOWN, counted.down),
        (Drop.PORT_MALFORMED, counted.malformed),
    )
    return [(reason, number) for reason, number in reasons if number]


def unwalked(counted: Counted) -> Iterable[tuple[Drop, int]]:
    """Frames that were dropped without a walk: (reason, number), without zeros."""
    reasons = ((Drop.WALK_POLICED, counted.policed), (Drop.ALIAS_NO_LINK, counted.no_link))
    return [(reason, number) for reason, number in reasons if number]
