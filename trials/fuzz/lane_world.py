"""Two ends on loopback with real sockets: one whose packets go by lanes, and its plain twin, given the same.

The compiled part is needed: importing this is an `ImportError` without it.
"""

from __future__ import annotations

import random
import socket
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import groupby
from operator import itemgetter

from bridge.ports.burst import CompiledBursts
from bridge.ports.device import DevicePort
from bridge.ports.udp.datagrams import DatagramSocket
from bridge.ports.udp.lanes import Lanes
from bridge.vpn.lanes import LaneBurst, PeerLanes
from flow.fast import CompiledTable
from flow.table import NO_SLOT, REPEAT
from tunnel.burst import CompiledCipher
from tunnel.effects import Datagram, Effects, Endpoint, Network, PeerConfig, Received
from tunnel.endpoint import Tunnel
from tunnel.primitives import public_key
from tunnel.session import Session
from wire.drop import Drop
from wire.gso import HEADER_BYTES, GsoHeader, segment, unpack
from wire.units import SECOND_NS

LOOPBACK = bytes([127, 0, 0, 1])
KEYS = {"near": bytes([1]) * 32, "far": bytes([2]) * 32}
VPN, TUN0 = 3, 1
MTU_BYTES = 1420
LANE_DROPS = (Drop.TUNNEL_AUTHENTICATION, Drop.TUNNEL_REPLAY, Drop.PORT_MALFORMED, Drop.PORT_FULL)
FIELDS = ("retransmit", "keepalive", "unanswered", "persistent", "erase", "announce", "withdraw", "path")

DeviceFrame = tuple[bytes, GsoHeader | None]


def tunnel(name: str, peer: str, allowed: Sequence[Network], endpoint: Endpoint | None, now: int) -> Tunnel:
    """The same randomness for the same name: twins give the same answers."""
    config = PeerConfig(peer, public_key(KEYS[peer]), tuple(allowed), endpoint)
    return Tunnel(
        KEYS[name],
        [config],
        now,
        wall_ns=lambda: 1_700_000_000 * SECOND_NS + now,
        random_bytes=random.Random(name).randbytes,
        mtu_bytes=MTU_BYTES,
    )


class LaneWorld:
    """`near` has lanes, `twin` has not; `far` is the other end. Frames that the flow table repeats leave by
    `device`."""

    def __init__(self, stack: ExitStack, allowed: Sequence[Network] = (Network(0, 0),)) -> None:
        self.now = 1000 * SECOND_NS
        self.near_socket, self.far_socket, self.third = (DatagramSocket(0) for _ in range(3))
        for opened in (self.near_socket, self.far_socket, self.third):
            stack.callback(opened.close)
        self.home = Endpoint(LOOPBACK, self.near_socket.port)
        self.away = Endpoint(LOOPBACK, self.far_socket.port)
        self.near = tunnel("near", "far", allowed, None, self.now)
        self.twin = tunnel("near", "far", allowed, None, self.now)
        self.far = tunnel("far", "near", [Network(0, 0)], self.home, self.now)
        self.lanes = Lanes(CompiledCipher())
        self.peer_lanes = PeerLanes(self.lanes, self.near_socket, {"vpn": VPN}.__getitem__)
        self.table = CompiledTable(64, 7)
        self.drops: Counter[Drop] = Counter()
        self.twin_drops: Counter[Drop] = Counter()
        self.packets: list[bytes] = []
        self.twin_packets: list[bytes] = []
        self.answers: list[bytes] = []
        self.twin_answers: list[bytes] = []
        self.last = LaneBurst([], [], [], [], (0, 0, 0, 0))
        self.meet()

    def repeat(self, stack: ExitStack) -> socket.socket:
        """From now on with a flow table; what leaves by tun0 comes out of the socket."""
        bursts = CompiledBursts(self.table, self.lanes)
        near, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (near, device):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
        port = DevicePort("tun0", "tun", "none", near.detach(), vnet_header=True, offloads=0)
        stack.callback(port.close)
        stack.callback(device.close)
        bursts.attach(TUN0, port)
        self.lanes.join(bursts)
        for number in (TUN0, VPN):
            self.table.set_port(number, b"", MTU_BYTES, None)
        return device

    def learn(self, ends: tuple[int, int, int, int], protocol: int, in_port: int = VPN, out_port: int = TUN0) -> None:
        """A flow that crosses as it is."""
        assert self.table.learn(in_port, out_port, protocol, ends, ends, 100, NO_SLOT, REPEAT, self.now) >= 0

    def renew(self) -> None:
        """Give the tunnel's changes to the lanes, as the port does after each call of the tunnel."""
        self.peer_lanes.renew(self.near, {"far": "vpn"})

    def refuse(self) -> None:
        """From now on the kernel takes nothing from the lane: its address is of no family."""
        session, path = self.session, self.near_socket.lane_path(self.away)
        assert path is not None
        self.lanes.open_lane(
            VPN, session.memory, session.keys.send, session.remote, MTU_BYTES, path.fd, True, 0, 1, bytes(16), None
        )

    def meet(self) -> None:
        """A session, and both have heard of each other."""
        self.carry(self.far.call("near", self.now).datagrams)
        for datagram in self.answers[-1:]:
            self.carry(self.far.receive([Received(datagram, self.home)], self.now).datagrams)
        assert self.session.local == self.session_of(self.twin).local
        self.carry(self.seal(b"\x45\0\0\x14" + bytes(16)))
        assert self.peer_lanes.open == {"far": VPN}
        self.drops.clear()  # of a packet from nowhere
        self.twin_drops.clear()

    # Sent by the far end

    def seal(self, *packets: bytes) -> list[Datagram]:
        """Data messages of the far end."""
        return self.far.send("near", list(packets), self.now).datagrams

    def carry(self, datagrams: Sequence[Datagram], *, by: DatagramSocket | None = None) -> None:
        """Datagrams come to both twins, in one burst."""
        self.carry_from([(by or self.far_socket, datagram) for datagram in datagrams])

    def carry_from(self, datagrams: Sequence[tuple[DatagramSocket, Datagram]]) -> None:
        """The same, each from a socket of its own."""
        burst: list[Received] = []
        for by, run in groupby(datagrams, key=itemgetter(0)):
            sent = [Datagram(self.home, data, tos) for _, (_, data, tos) in run]
            assert not by.send_burst(sent)
            burst += [Received(data, Endpoint(LOOPBACK, by.port), tos & 3) for _, data, tos in sent]
        self.take()
        while self.near_socket.ready():  # a call ends where a session was paused
            self.take()
        effects = self.twin.receive(burst, self.now)
        self.twin_packets += [packet for _, packet in effects.packets]
        self.twin_drops.update(effects.drops)
        self.twin_answers += [answer.data for answer in effects.datagrams]

    def take(self) -> None:
        """Receive as the port `vpn` does where it has lanes."""
        self.last = taken = self.peer_lanes.receive(1 << 20, self.now)
        self.drops.update({reason: count for reason, count in zip(LANE_DROPS, taken.drops, strict=True) if count})
        effects, frames = self.near.lane_opened(taken.received, taken.opened, self.now)
        self.settle(effects)
        self.packets += cut([(frame, gso) for _, frame, gso in frames])
        if taken.strange:
            effects = self.near.receive(taken.strange, self.now)
            self.settle(effects)
            self.packets += [packet for _, packet in effects.packets]
        self.renew()

    def settle(self, effects: Effects) -> None:
        """Keep what the end with lanes drops and answers."""
        self.drops.update(effects.drops)
        self.answers += [answer.data for answer in effects.datagrams]

    # Equal at both

    @property
    def session(self) -> Session:
        """The one that the lanes use."""
        return self.session_of(self.near)

    def session_of(self, of: Tunnel) -> Session:
        """The newest with the far end."""
        peer = of._by_name["far"]
        session = peer.slots.current or peer.slots.next
        assert session is not None
        return session

    def agree(self) -> None:
        """The twins are in the same state, and have given the same packets in the order of each flow."""
        assert flows(self.packets) == flows(self.twin_packets)
        assert self.drops == self.twin_drops
        assert self.answers == self.twin_answers
        assert self.near.status(self.now) == self.twin.status(self.now)
        states = []
        for of in (self.near, self.twin):
            timers = of._by_name["far"].timers
            windows = {
                index: (session.counter, session.window.state()) for index, session in of._indices.sessions.items()
            }
            states.append((windows, {field: getattr(timers, field) for field in FIELDS}))
        assert states[0] == states[1]


def cut(frames: Sequence[DeviceFrame]) -> list[bytes]:
    """Frames as the packets that they were."""
    return [
        bytes(piece) for frame, gso in frames for piece in ([frame] if gso is None else segment(bytearray(frame), gso))
    ]


def flows(packets: Sequence[bytes]) -> dict[bytes, list[bytes]]:
    """Packets by their ends, each flow in its order."""
    found: dict[bytes, list[bytes]] = defaultdict(list)
    for packet in packets:
        found[packet[9:10] + packet[12:24]].append(packet)
    return found


def left(device: socket.socket) -> list[DeviceFrame]:
    """The bytes that were written to a device."""
    frames: list[DeviceFrame] = []
    while True:
        try:
            whole = device.recv(1 << 17)
        except BlockingIOError:
            return frames
        frames.append((whole[HEADER_BYTES:], unpack(whole, 0)))
