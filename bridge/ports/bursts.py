"""Bursts of frames between ports: frames that the flow table knows are repeated, the others are handed to the walk.

`Bursts` is the interface for `bridge.loop.loop`. `PlainBursts` has it in plain Python, with any `Port`;
`bridge.ports.burst.CompiledBursts` works without the interpreter. Frames for an out-port that is no device (a peer of
the tunnel), and frames that a device without virtio header cannot take as they are, come back for the port's writer.
"""

from __future__ import annotations

import select
from collections import Counter
from dataclasses import astuple, dataclass
from typing import Any, Final, Protocol

from bridge.ports.base import Port, ReceivedFrame
from bridge.ports.counted import Counted
from bridge.ports.policing import MOST, PlainPolice
from flow.table import IN_ORDER, Forwarded, Punt, Table
from wire import ethernet
from wire.drop import Drop
from wire.gso import GsoHeader, untagged

BURST_BYTES: Final = 1 << 20
"""A burst ends behind so many bytes, or the other ports would wait for a millisecond and more."""

Queued = tuple[int, bytes, GsoHeader | None]
"""A frame for the writer of an out-port: (number, frame, gso)."""


class Bursts(Protocol):
    """Ports are numbers, as in the flow table. `now` is in ns."""

    def attach(self, number: int, port: Port, police: Any = None) -> None:
        """Frames come and go by this port. `police`: judges the frames for the walk (`bridge.ports.policing`); it is
        compiled or plain as the bursts are. None: all of them are walked."""

    def wait(
        self, epoll: select.epoll, timeout_s: float | None, limit: int
    ) -> tuple[tuple[int, list[ReceivedFrame], list[Queued]] | None, list[tuple[int, int]]]:
        """Wait as `epoll.poll`, for ever where `timeout_s` is None. Ports that are ready may be served on the way, each
        with bursts of `limit` frames: a burst that leaves frames ends the waiting, and comes back with its port's
        number. So does anything else that is ready: (descriptor, events), ports among them that were not served."""

    def take(self, number: int, limit: int, now: int) -> tuple[list[ReceivedFrame], list[Queued]]:
        """A burst of a port, at most `limit` frames: those that the walk must see, and those that writers of ports must
        send, both in order. A punt in `IN_ORDER` ends the burst. `PortGone` where the device went."""

    def counted(self) -> list[Counted]:
        """The accounts of all ports since the last call; those without any change are left out."""

    def punts(self) -> dict[Punt, int]:
        """Frames handed to the walk since the start, by reason."""


@dataclass(slots=True)
class _Account:
    """One port's counters since the last account, in the order of `Counted` behind its port."""

    rx_packets: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0
    full: int = 0
    down: int = 0
    malformed: int = 0
    policed: int = 0
    no_link: int = 0

    def refused(self, reason: Drop) -> None:
        """The port's device refused a frame; a reason that no counter has is a malformed frame."""
        if reason is Drop.PORT_FULL:
            self.full += 1
        elif reason is Drop.PORT_DOWN:
            self.down += 1
        else:
            self.malformed += 1


class PlainBursts:
    """One system call a frame each way, and one look into the table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._ports: dict[int, Port] = {}
        self._police: dict[int, PlainPolice | None] = {}
        self._accounts: dict[int, _Account] = {}
        self._punts: Counter[Punt] = Counter()

    def attach(self, number: int, port: Port, police: PlainPolice | None = None) -> None:
        """As `Bursts`."""
        self._ports[number] = port
        self._police[number] = police

    def wait(
        self, epoll: select.epoll, timeout_s: float | None, limit: int
    ) -> tuple[tuple[int, list[ReceivedFrame], list[Queued]] | None, list[tuple[int, int]]]:
        """As `Bursts`. No port is served on the way."""
        return None, epoll.poll(timeout_s)

    def take(self, number: int, limit: int, now: int) -> tuple[list[ReceivedFrame], list[Queued]]:
        """As `Bursts`. All frames that were read must be handled: behind a punt in `IN_ORDER` the rest goes to the
        walk. So frames are read one by one while those for the walk are policed."""
        police = self._police.get(number)
        walked: list[ReceivedFrame] = []
        queued: list[Queued] = []
        left = limit
        is_empty = goes_on = False
        if police is None or police.quota == MOST:
            left -= (count := self._take(number, limit, now, police, walked, queued)[0])
            is_empty = count < limit
        else:
            goes_on = True
        while goes_on and left and not is_empty:
            count, goes_on = self._take(number, 1, now, police, walked, queued)
            left -= count
            is_empty = not count
        if police is not None:
            police.ended(limit - left, is_empty, now)
        return walked, queued

    def _take(
        self,
        number: int,
        limit: int,
        now: int,
        police: PlainPolice | None,
        walked: list[ReceivedFrame],
        queued: list[Queued],
    ) -> tuple[int, bool]:
        """Read and handle frames. Returns their number, and False where no more may be read in this burst."""
        forward, ports = self.table.forward, self._ports
        received = self._account(number)
        burst = self._ports[number].read_burst(limit)
        for at, (frame, gso) in enumerate(burst):
            found = forward(number, frame, gso, now)
            tags = ethernet.priority_tags(frame) if found is Punt.ETHERNET else 0
            if tags:
                frame = ethernet.without_tags(frame, tags)  # noqa: PLW2901 - the same frame, as it counts
                gso = gso and untagged(gso, tags * ethernet.TAG_BYTES)  # noqa: PLW2901 - likewise
                found = forward(number, frame, gso, now)
            if (
                isinstance(found, Punt)
                and found is not Punt.NO_LINK
                and (police is None or police.admits(frame, found))
            ):
                self._punts[found] += 1
                walked.append((frame, gso))
                if found in IN_ORDER:
                    walked += burst[at + 1 :]
                    return len(burst), False
                continue
            received.rx_packets += 1
            received.rx_bytes += len(frame)
            if not isinstance(found, Forwarded):
                if found is Punt.NO_LINK:
                    received.no_link += 1
                else:
                    received.policed += 1
                continue
            out, rewritten, _ = found
            sent = self._account(out)
            sent.tx_packets += 1
            sent.tx_bytes += len(rewritten)
            port = ports.get(out)
            if port is None:
                queued.append((out, rewritten, gso))
                continue
            refusal = port.write(rewritten, gso)
            if refusal is not None:
                sent.refused(refusal)
        return len(burst), True

    def _account(self, number: int) -> _Account:
        account = self._accounts.get(number)
        if account is None:
            account = self._accounts[number] = _Account()
        return account

    def counted(self) -> list[Counted]:
        """As `Bursts`."""
        found = [Counted(port, *astuple(account)) for port, account in self._accounts.items() if account != _Account()]
        self._accounts.clear()
        return found

    def punts(self) -> dict[Punt, int]:
        """As `Bursts`."""
        return dict(self._punts)
