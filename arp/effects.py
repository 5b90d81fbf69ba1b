"""Effects of the ARP of a port, as values. The walk carries them out and counts them."""

from __future__ import annotations

from typing import NamedTuple

from wire.drop import Drop


class Transmit(NamedTuple):
    """Send a whole Ethernet frame, padded to 60 bytes, by the port itself."""

    frame: bytes


class Release(NamedTuple):
    """A waiting frame may go to `mac`; one for each, in the order in which they were held."""

    mac: bytes
    waiting: object


class GaveUp(NamedTuple):
    """A waiting frame will not be sent: ARP_SUPERSEDED, ARP_QUEUE_FULL, ARP_NO_ANSWER or ARP_NO_SUCH_HOST."""

    reason: Drop
    waiting: object


class FrameDropped(NamedTuple):
    """Count a drop: the ARP frame that came in taught the table nothing, or its claim was refused."""

    reason: Drop


class EntryChanged(NamedTuple):
    """An entry has changed. Every copy of its MAC address is outdated, and the operator is told.

    `mac`: the destination of frames to `address` from now on; None: no longer known. `state`: of the entry, as
    `Entry.state`, or `expired` where there is none any more, or `conflict`. `change` is one of

    - `learned`, `changed`: `mac` is new;
    - `failed`, `expired`: nobody answered, nobody asked for it for a minute; `mac` is None;
    - `refused`: another MAC address was claimed within the lock time or for a static entry; `mac` stays, `claimant`
      is the other one; told once in a lock time;
    - `conflict`: `address` is our own and somebody else uses it; `mac` and `claimant` are theirs. Or: another MAC
      address was claimed for a neighbour, which was asked and has answered; `mac` stays, `claimant` is the other one;
      told once in ten seconds.
    """

    address: int
    mac: bytes | None
    state: str
    change: str
    claimant: bytes | None = None


ArpEffect = Transmit | Release | GaveUp | FrameDropped | EntryChanged


class Entry(NamedTuple):
    """One line of `bridgectl arp`. `state`: incomplete, reachable, stale, delay, probe, failed or static.
    `age_s`: seconds since it was confirmed, learned, put to the question or last asked for; 0 for static entries."""

    ip: int
    mac: bytes | None
    state: str
    age_s: float
    static: bool
