"""Lanes kept in step with the tunnel: what compiled code may do for which peer, and what it did.

The tunnel stays in charge of sessions, timers, rekeying, roaming and path MTU. After every call of it that may have
changed any of these, `renew` compares what it says now with what the lanes were told, and tells them what is new. After
a burst, `bridge.vpn.port` hands what happened to the tunnel, once for each session.

Numbers are those of ports in the flow table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from bridge.ports.bursts import Queued
from bridge.ports.udp.ways import Heading
from tunnel.effects import Datagram, Endpoint, Received
from tunnel.endpoint import Opened, SessionRx
from tunnel.session import Lane

if TYPE_CHECKING:
    from bridge.ports.udp.datagrams import DatagramSocket
    from bridge.ports.udp.lanes import Lanes
    from tunnel.endpoint import Tunnel

MOST_SESSIONS: Final = 2048
"""That are heard by lanes; peers beyond go by the tunnel's own way."""
_PACKET_BYTES = 1000
"""Helpers are asked for by packets, and what came is counted in bytes: packets of about this size."""


class _Told(NamedTuple):
    """What the lanes know of a peer."""

    lane: Lane
    number: int
    heading: Heading


class LaneBurst(NamedTuple):
    """The rest of a burst that lanes received. `strange`: datagrams that no lane knows; `opened`: packets to be judged
    and walked; `queued`: frames for writers of ports; `received`: authentic datagrams, by session; `drops`: the number
    of datagrams that were forged, seen before, cut off by the kernel, refused by the kernel."""

    strange: list[Received]
    opened: list[Opened]
    queued: list[Queued]
    received: list[SessionRx]
    drops: tuple[int, int, int, int]


class PeerLanes:
    """`number`: of a port's name; `worked`: hears how many packets were sealed or opened at once; `most_sessions`: that
    are heard. `open`: the number of each peer that has a lane."""

    def __init__(
        self,
        lanes: Lanes,
        datagrams: DatagramSocket,
        number: Callable[[str], int],
        worked: Callable[[int], None] = lambda packets: None,
        most_sessions: int = MOST_SESSIONS,
    ) -> None:
        self.lanes = lanes
        self.datagrams = datagrams
        self.open: dict[str, int] = {}
        self._number = number
        self._worked = worked
        self._most_sessions = most_sessions
        self._unsent: list[Datagram] = []
        self._told: dict[str, _Told] = {}
        self._peers: dict[int, str] = {}
        self._state = -1

    def renew(self, tunnel: Tunnel, ports: Mapping[str, str], *, is_sure: bool = True) -> None:
        """Tell the lanes what has changed. `ports`: by peer; `is_sure`: False where the ways are in doubt."""
        held, is_same = self._told, is_sure and self._state == self.datagrams.state
        self._state = self.datagrams.state
        told: dict[str, _Told] = {}
        sessions = 0
        for lane in tunnel.lanes():
            sessions += len(lane.receiving)
            if sessions > self._most_sessions:
                break
            before = held.get(lane.peer)
            if (
                before is not None
                and is_same
                and before.lane.sending is lane.sending
                and before.lane.endpoint is lane.endpoint
                and before.lane == lane
            ):
                told[lane.peer] = before
                continue
            heading = self.datagrams.heading(lane.endpoint)
            number = self._number(ports[lane.peer]) if lane.peer in ports else -1
            if heading is not None and number >= 0:
                told[lane.peer] = _Told(lane, number, heading)
        if told == held:
            return
        for peer, old in held.items():
            if peer not in told or told[peer].number != old.number:
                self.lanes.close_lane(old.number)
        for peer, new in told.items():
            if held.get(peer) != new:
                self._open(new)
        self.lanes.set_ears(
            (session.local, session.memory, session.keys.receive, known.number, known.heading.name, known.heading.heard)
            for known in told.values()
            for session in known.lane.receiving
        )
        self._unsent = self.take_unsent()  # while the endpoints are known that they were for
        self._told = told
        self.open = {peer: known.number for peer, known in told.items()}
        self._peers |= {number: peer for peer, number in self.open.items()}

    def _open(self, known: _Told) -> None:
        lane, number, heading = known
        session = lane.sending
        self.lanes.open_lane(
            number,
            session.memory,
            session.keys.send,
            session.remote,
            lane.mtu_bytes,
            heading.fd,
            heading.segments,
            *heading.tos,
            heading.name,
            heading.chosen,
        )

    @property
    def is_stale(self) -> bool:
        """The kernel's routes have changed since."""
        return self._state != self.datagrams.state

    def take_unsent(self) -> list[Datagram]:
        """Datagrams that the kernel did not take as they were, for whoever knows what to do about it."""
        found, self._unsent = self._unsent, []
        return found + [
            Datagram(self._told[self._peers[number]].lane.endpoint, datagram, tos)
            for number, datagram, tos in self.lanes.take_unsent()
        ]

    def receive(self, limit: int, now: int) -> LaneBurst:
        """A burst at each socket at which something waits."""
        strange: list[Received] = []
        moved: dict[int, Endpoint] = {}
        for door in self.datagrams.ready():
            self.lanes.receive(door.socket.fileno(), limit, now)
            came, last = self.lanes.came()
            strange += [self.datagrams.received(door, *one) for one in came]
            for index, (name, info) in last.items():
                moved[index] = self.datagrams.received(door, b"", name, info, 0).source
        opened, queued, sizes, drops = self.lanes.taken()
        self._worked(sum(size_bytes for _, size_bytes, _ in sizes) // _PACKET_BYTES)
        heard = [SessionRx(index, size_bytes, has_data, moved.get(index)) for index, size_bytes, has_data in sizes]
        return LaneBurst(strange, opened, queued, heard, drops)

    def send(self) -> list[tuple[str, int]]:
        """What was pushed leaves; the bytes that were sealed for each peer since the last time."""
        self.lanes.send()
        sent = self.lanes.sent()
        if sent:
            self._worked(max(packets for _, packets, _ in sent))
        return [(self._peers[number], size_bytes) for number, _, size_bytes in sent]

    def close(self) -> None:
        """Nothing may use them any more."""
        for number in self.open.values():
            self.lanes.close_lane(number)
        self.lanes.set_ears(())
        self.open, self._told = {}, {}
