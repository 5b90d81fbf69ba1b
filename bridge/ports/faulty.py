"""A port behind a bad cable: frames are lost, doubled, swapped and damaged, in both directions, as a seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from bridge.ports.base import Port, PortKind, ReceivedFrame
from wire.drop import Drop
from wire.gso import GsoHeader


@dataclass(frozen=True, slots=True)
class CableFaults:
    """The probability of each kind of damage to a frame, 0.0 to 1.0. They are drawn independently, loss first."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0


class FaultyPort:
    """Wraps `port`. A frame chosen for reordering is held back until the next one of its direction has passed; one
    that nothing follows stays behind, as on a cable that was cut.

    Damage is one flipped bit. A super-frame stays one: the damage hits it whole.
    """

    def __init__(self, port: Port, faults: CableFaults, rng: random.Random) -> None:
        self._port = port
        self._faults = faults
        self._rng = rng
        self._late_in: list[ReceivedFrame] = []
        self._late_out: list[ReceivedFrame] = []

    @property
    def name(self) -> str:
        """The wrapped port's name."""
        return self._port.name

    @property
    def kind(self) -> PortKind:
        """The wrapped port's kind."""
        return self._port.kind

    @property
    def link_bytes(self) -> int:
        """The wrapped port's link header."""
        return self._port.link_bytes

    def fileno(self) -> int:
        """The wrapped port's descriptor."""
        return self._port.fileno()

    def read_burst(self, limit: int) -> list[ReceivedFrame]:
        """The frames of the next burst that the cable lets through. Doubled frames may make it longer than `limit`."""
        return [
            arrival for frame, gso in self._port.read_burst(limit) for arrival in self._pass(frame, gso, self._late_in)
        ]

    def write(self, frame: bytes | bytearray, gso: GsoHeader | None) -> Drop | None:
        """A frame that the cable loses was sent all the same: the answer is the wrapped port's last one, or None."""
        answer = None
        for piece, claims in self._pass(bytes(frame), gso, self._late_out):
            answer = self._port.write(piece, claims)
        return answer

    def close(self) -> None:
        """Close the wrapped port."""
        self._port.close()

    def _pass(self, frame: bytes, gso: GsoHeader | None, late: list[ReceivedFrame]) -> Iterator[ReceivedFrame]:
        faults, rng = self._faults, self._rng
        if rng.random() < faults.loss:
            return
        if frame and rng.random() < faults.corrupt:
            damaged = bytearray(frame)
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            frame = bytes(damaged)
        copies = 2 if rng.random() < faults.duplicate else 1
        if not late and rng.random() < faults.reorder:
            late.extend([(frame, gso)] * copies)
            return
        yield from [(frame, gso)] * copies
        yield from late
        late.clear()
