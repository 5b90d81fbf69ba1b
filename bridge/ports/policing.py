"""Policing of the walk: a flood of frames that only the walk can judge is cut down before it reaches Python.

To walk a frame costs ten times as much as to read it and repeat a decision. Where more frames come than can be walked,
the kernel's queue of the port runs over, and loses frames of established flows as well. So, as switches do for their
control plane, a port that is behind lets only so many frames to the walk, and shares these out among the senders. A
sender that floods has spent its share, the others are not touched. Frames that the flow table repeats are never
policed.

- *Behind* is measured, not configured: `BEHIND_FRAMES` were read and the queue was never seen empty. Then the quota of
  walks falls by a quarter, and again after `AGAIN_FRAMES` more; it rises by one in every millisecond at whose end the
  queue was found empty. So it stays where the rest of the time is just enough to read all frames, whatever a walk takes
  on this machine, and without a flood it is not there. It never falls below `LEAST` in `MOST` frames: a machine that is
  busy with repeating walks still.
- *Senders* are told apart by a keyed hash, `SENDERS` of them: on the LAN by the MAC address of the station (it may use
  every IP address of the LAN), elsewhere by the source address, and frames that are not IPv4, ARP first of all, apart
  from it by the MAC address: packets from random addresses fill every place of theirs, and the router's answers come
  through. On the LAN a station whose MAC address is the one that the ARP table has for the frame's source is *known*;
  all others, random ones among them, are `STRANGERS` senders together. Frames of flows whose lease has run out
  (`Punt.OUTDATED`) count apart, as if of other senders: a sender that floods does not lose its present flows.
- *Shares* fill the quota up: a sender that wants less than an even share gets all that it wants, and leaves the rest to
  the others. They follow the wants of the last `SHARE_FRAMES`. Up to `SAVED` walks can be saved up, so a sender of few
  frames never waits for a refill.

It knows no clock but the `now` of the burst, and no randomness but its seed: the compiled twin (`bridge.ports.police`)
decides the same for the same frames. Replay reads no ports, and so is never policed.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Protocol

from flow.table import Punt
from wire.ethernet import ARP_TYPE, HEADER_BYTES, IPV4_TYPE

MOST: Final = 64
LEAST: Final = 2
BEHIND_FRAMES: Final = 1536
"""Half as many again as a device's queue holds: a stall that filled the queue once is no flood."""
AGAIN_FRAMES: Final = 128
SHARE_FRAMES: Final = 1024
SAVED: Final = 8
SENDERS: Final = 256
STRANGERS: Final = 16
PLACES: Final = 3 * SENDERS
"""Of known stations or addresses, of strangers (elsewhere than on the LAN: of stations), of flows that are due for a
walk."""
WALK: Final = 1 << 16
"""One walk, in the unit of shares: with it, a share of `SHARE_FRAMES` in 1/64 walks is also the refill of a frame."""
_WANTED: Final = WALK // SHARE_FRAMES
_ROUNDS: Final = 4
_MASK_64: Final = (1 << 64) - 1
_MAC_MASK: Final = (1 << 48) - 1
_FACTOR: Final = 0x9E3779B97F4A7C15


class Senders(IntEnum):
    """The field that tells the senders at a port apart."""

    STATIONS = 1  # MAC addresses
    ADDRESSES = 2  # IPv4 source addresses; apart from them MAC addresses for frames that are not IPv4


class Police(Protocol):
    """Of one port."""

    quota: int

    def know(self, network: int, words: memoryview | None) -> None:
        """The stations of the LAN: `ArpTable.words` for the subnet at `network`; None where there is no such table."""

    def admits(self, frame: bytes, punt: Punt) -> bool:
        """Whether a frame may be walked. `frame`: with its link header, if it has one."""

    def ended(self, frames: int, is_empty: bool, now: int) -> None:
        """A burst of so many frames is over, and whether it left the queue empty. `now` in ns."""


class PlainPolice:
    """As `Police`. `link_bytes`: 14 or 0; `seed`: 64 bits that nobody can guess."""

    def __init__(self, senders: Senders, link_bytes: int, seed: int) -> None:
        self.quota = MOST
        self._by_station = senders is Senders.STATIONS
        self._link_bytes = link_bytes
        self._seed = seed
        self._frames = 0  # that were read, ever
        self._behind = 0  # since the queue was last seen empty, or the quota fell
        self._shared_at = 0  # frames
        self._rose_ms = 0
        self._share = WALK
        self._network = 0
        self._words: memoryview | None = None
        self._saved = [SAVED * WALK] * PLACES
        self._seen = [0] * PLACES  # frames, when it was refilled
        self._wanted = [0] * PLACES

    def know(self, network: int, words: memoryview | None) -> None:
        """As `Police`."""
        self._network, self._words = network, words

    def admits(self, frame: bytes, punt: Punt) -> bool:
        """As `Police`."""
        at = self._place(frame, punt)
        self._wanted[at] += 1
        if self.quota == MOST:
            return True
        saved = min(self._saved[at] + (self._frames - self._seen[at]) * self._share, SAVED * WALK)
        self._seen[at] = self._frames
        is_admitted = saved >= WALK
        self._saved[at] = saved - WALK if is_admitted else saved
        return is_admitted

    def _place(self, frame: bytes, punt: Punt) -> int:
        at = self._link_bytes
        is_station = at > 0 and (self._by_station or frame[12:14] != IPV4_TYPE or len(frame) < HEADER_BYTES + 20)
        key = int.from_bytes(frame[6:12] if is_station else frame[at + 12 : at + 16], "big")
        value = ((key ^ self._seed) * _FACTOR) & _MASK_64
        value = ((value ^ value >> 32) * _FACTOR) & _MASK_64
        if punt is Punt.OUTDATED:
            return 2 * SENDERS + (value >> 56)
        if not self._by_station:
            return (value >> 56) + (SENDERS if is_station else 0)
        if self._is_known(frame):
            return value >> 56
        return SENDERS + (value >> 56) % STRANGERS

    def _is_known(self, frame: bytes) -> bool:
        if self._words is None or len(frame) < HEADER_BYTES + 20:
            return False
        kind = frame[12:14]
        at = 26 if kind == IPV4_TYPE else 28 if kind == ARP_TYPE else 0
        slot = int.from_bytes(frame[at : at + 4], "big") - self._network
        if not at or not 0 <= slot < len(self._words) // 4:
            return False
        return self._words[4 * slot] & _MAC_MASK == int.from_bytes(frame[6:12], "big")

    def ended(self, frames: int, is_empty: bool, now: int) -> None:
        """As `Police`."""
        now_ms = now // 1_000_000
        self._frames += frames
        if is_empty:
            self._behind = 0
            self.quota = min(self.quota + max(now_ms - self._rose_ms, 0), MOST)
        else:
            self._behind += frames
            if self._behind >= (BEHIND_FRAMES if self.quota == MOST else AGAIN_FRAMES):
                self._behind = 0
                self.quota = max(self.quota * 3 // 4, LEAST)
        self._rose_ms = now_ms
        if self._frames - self._shared_at >= SHARE_FRAMES:
            self._shared_at = self._frames
            self._share_out()

    def _share_out(self) -> None:
        """Fill the quota up: each round gives the rest of the light senders' shares to the heavy ones."""
        wanted = [count * _WANTED for count in self._wanted if count]
        self._wanted = [0] * PLACES
        quota = self.quota * SHARE_FRAMES // MOST * _WANTED
        self._share = quota // max(len(wanted), 1)
        for _ in range(_ROUNDS):
            light = [count for count in wanted if count <= self._share]
            heavy = len(wanted) - len(light)
            if not heavy:
                self._share = quota
                return
            self._share = max((quota - sum(light)) // heavy, self._share)
