"""Lanes kept in step with the tunnel. A *lane* is the path of one peer's packets through compiled code.

The tunnel stays in charge of sessions, timers, rekeying, roaming and path MTU. After every call of the tunnel that may
have changed any of these, `renew` compares the lanes that the tunnel allows now with those that are open, and opens and
closes the difference. After a burst `bridge.vpn.port` reports to the tunnel what the lanes did, once for each session.

The numbers here are numbers of ports in the flow table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from bridge.ports.bursts import Queued
from bridge.ports.udp.paths import LanePath
from tunnel.effects import Datagram, Endpoint, Received
from tunnel.endpoint import Opened, SessionRx
from tunnel.session import Lane

if TYPE_CHECKING:
    from bridge.ports.udp.datagrams import DatagramSocket
    from bridge.ports.udp.lanes import Lanes
    from tunnel.endpoint import Tunnel

MOST_SESSIONS: Final = 2048
"""Sessions whose datagrams lanes open. Peers beyond that are served by `Tunnel.receive` and `Tunnel.send`."""
_PACKET_BYTES = 1000
"""Received bytes count as packets of this size, where helper threads are asked for by packets."""


class _OpenLane(NamedTuple):
    """An open lane: the tunnel's side, the number of the peer's port, the path of its datagrams."""

    lane: Lane
    number: int
    path: LanePath


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
    """`lanes`: the compiled code; `number`: gives the number of a port's name; `worked`: takes the number of packets
    that were sealed or opened at once; `most_sessions`: sessions whose datagrams lanes open. `open`: the port's number
    of each peer that has a lane."""

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
        self._told: dict[str, _OpenLane] = {}
        self._peers: dict[int, str] = {}
        self._state = -1

    def renew(self, tunnel: Tunnel, ports: Mapping[str, str], *, is_sure: bool = True) -> None:
        """Open and close lanes where something has changed. `ports`: by peer; `is_sure`: False where paths are in
        doubt."""
        held, is_same = self._told, is_sure and self._state == self.datagrams.state
        self._state = self.datagrams.state
        told: dict[str, _OpenLane] = {}
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
            path = self.datagrams.lane_path(lane.endpoint)
            number = self._number(ports[lane.peer]) if lane.peer in ports else -1
            if path is not None and number >= 0:
                told[lane.peer] = _OpenLane(lane, number, path)
        if told == held:
            return
        for peer, old in held.items():
            if peer not in told or told[peer].number != old.number:
                self.lanes.close_lane(old.number)
        for peer, new in told.items():
            if held.get(peer) != new:
                self._open(new)
        self.lanes.set_inbound(
            (session.local, session.memory, session.keys.receive, known.number, known.path.name, known.path.pktinfo)
            for known in told.values()
            for session in known.lane.receiving
        )
        self._unsent = self.take_unsent()  # while the endpoints are known that they were for
        self._told = told
        self.open = {peer: known.number for peer, known in told.items()}
        self._peers |= {number: peer for peer, number in self.open.items()}

    def _open(self, known: _OpenLane) -> None:
        lane, number, path = known
        session = lane.sending
        self.lanes.open_lane(
            number,
            session.memory,
            session.keys.send,
            session.remote,
            lane.mtu_bytes,
            path.fd,
            path.segments,
            *path.tos,
            path.name,
            path.chosen,
        )

    @property
    def is_stale(self) -> bool:
        """True where the kernel's routes have changed since `renew`."""
        return self._state != self.datagrams.state

    def take_unsent(self) -> list[Datagram]:
        """Datagrams that the kernel refused as they were: the caller sends them by `send_burst`, which knows each
        refusal."""
        found, self._unsent = self._unsent, []
        return found + [
            Datagram(self._told[self._peers[number]].lane.endpoint, datagram, tos)
            for number, datagram, tos in self.lanes.take_unsent()
        ]

    def receive(self, limit: int, now: int) -> LaneBurst:
        """Read a burst at each socket at which datagrams wait. `limit`: about so many of each."""
        strange: list[Received] = []
        moved: dict[int, Endpoint] = {}
        for via in self.datagrams.ready():
            self.lanes.receive(via.socket.fileno(), limit, now)
            strange_here, moved_here = self.lanes.socket_results()
            strange += [self.datagrams.received(via, *one) for one in strange_here]
            for index, (name, info) in moved_here.items():
                moved[index] = self.datagrams.received(via, b"", name, info, 0).source
        opened, queued, sizes, drops = self.lanes.burst_results()
        self._worked(sum(size_bytes for _, size_bytes, _ in sizes) // _PACKET_BYTES)
        received = [SessionRx(index, size_bytes, has_data, moved.get(index)) for index, size_bytes, has_data in sizes]
        return LaneBurst(strange, opened, queued, received, drops)

    def send(self) -> list[tuple[str, int]]:
        """Seal and send the packets that were pushed. Returns (peer, bytes of datagrams) sealed since the last call."""
        self.lanes.send()
        sent = self.lanes.sent()
        if sent:
            self._worked(max(packets for _, packets, _ in sent))
        return [(self._peers[number], size_bytes) for number, _, size_bytes in sent]

    def close(self) -> None:
        """Close all lanes."""
        for number in self.open.values():
            self.lanes.close_lane(number)
        self.lanes.set_inbound(())
        self.open, self._told = {}, {}
