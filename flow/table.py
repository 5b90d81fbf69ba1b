"""The flows that pass the gateway, one record for each direction, as the walk decided them.

Operations: `saw` at every forwarded packet, `live` for people and for `route diff`. Caveats: a record is told, never
asked: no packet is forwarded because of it. The table is bounded; where it is full the record that was added first
gives way if it has been idle for `IDLE_NS`, else it goes to the end of the line and the new flow stays unrecorded
after a few tries (it is forwarded all the same). Records idle for `FORGET_NS` are forgotten when somebody asks, and
when a new flow comes, once in `IDLE_NS`. A record costs about half a kilobyte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from wire.units import SECOND_NS

IDLE_NS = 60 * SECOND_NS
FORGET_NS = 5 * IDLE_NS
_TRIES = 8

_Key = tuple[str, int, tuple[int, int], tuple[int, int]]


class Flow:
    """One direction of one flow. `inside` and `outside` are (address, port) of the near and the far end; the end behind
    `in_port` sends. Ports are 0 where the protocol has none, the identifier for ICMP queries."""

    __slots__ = ("bytes", "in_port", "inside", "last_seen_ns", "out_port", "outside", "packets", "protocol")

    def __init__(
        self, in_port: str, out_port: str, protocol: int, inside: tuple[int, int], outside: tuple[int, int], now: int
    ) -> None:
        self.in_port = in_port
        self.out_port = out_port
        self.protocol = protocol
        self.inside = inside
        self.outside = outside
        self.packets = 0
        self.bytes = 0
        self.last_seen_ns = now


class FlowTable:
    """Records of flows, at most `limit` of them."""

    def __init__(self, limit: int = 32_768) -> None:
        self.limit = limit
        self._flows: dict[_Key, Flow] = {}
        # The keys once more, the next to give way in front: the first key of a dict from which the first ones are taken
        # again and again is found by a walk over everything that was taken, which whoever makes flows could inflate.
        self._line: deque[_Key] = deque()
        self._forget_ns = 0

    def __len__(self) -> int:
        return len(self._flows)

    def saw(
        self,
        in_port: str,
        out_port: str,
        protocol: int,
        inside: tuple[int, int],
        outside: tuple[int, int],
        size_bytes: int,
        now: int,
    ) -> None:
        """Count one packet that came in by `in_port` and left by `out_port`."""
        key = (in_port, protocol, inside, outside)
        flow = self._flows.get(key)
        if flow is None:
            if now >= self._forget_ns:
                self._forget(now, FORGET_NS)
            if len(self._flows) >= self.limit and not self._make_room(now):
                return
            flow = self._flows[key] = Flow(in_port, out_port, protocol, inside, outside, now)
            self._line.append(key)
        flow.out_port = out_port
        flow.packets += 1
        flow.bytes += size_bytes
        flow.last_seen_ns = now

    def live(self, now: int, idle_ns: int = FORGET_NS) -> Iterator[Flow]:
        """The flows that were seen within `idle_ns`; the others are forgotten on the way."""
        self._forget(now, idle_ns)
        yield from self._flows.values()

    def _forget(self, now: int, idle_ns: int) -> None:
        self._forget_ns = now + IDLE_NS
        gone = [key for key, flow in self._flows.items() if now - flow.last_seen_ns > idle_ns]
        for key in gone:
            del self._flows[key]
        if gone:
            self._line = deque(key for key in self._line if key in self._flows)

    def _make_room(self, now: int) -> bool:
        line = self._line
        for _ in range(min(_TRIES, len(line))):
            if now - self._flows[line[0]].last_seen_ns > IDLE_NS:
                del self._flows[line.popleft()]
                return True
            line.rotate(-1)
        return False
