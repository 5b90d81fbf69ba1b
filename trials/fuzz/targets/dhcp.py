"""Hostile answers into the DHCP client, while time passes, the link flaps and the operator changes his mind.

A server answers with what may stand in an offer, spoiled or not, for this exchange or for others; the file of an
earlier run holds whatever it likes. Must hold after each input:

- no exception; a message of a stranger changes nothing;
- the port has the lease that the client has, and a state that bears a lease has one;
- a lease fits: no overlap with the LAN, an MTU from 576 to the port's, T1 before T2 before the end;
- a deadline is later than the tick that set it, and only a stopped client or an infinite lease has none;
- what leaves is a message that the reader takes, at most two for one input, and none that overlaps is requested.
"""

from __future__ import annotations

import random
from typing import Final

from dhcp import datagram, message, saved
from dhcp import options as option
from dhcp.client import Client
from dhcp.effects import Assume, Broadcast, ClientEffect, MessageDropped, Submit, Vacate
from dhcp.lease import Lease, conflict_of
from dhcp.message import Kind, Message
from dhcp.saved import SavedLease
from dhcp.settings import ClientSettings, LeaseLimits, Subnet
from dhcp.states import ClientState
from trials.fuzz.hostile import Broken, Failure, Target, goes_on, mutated
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.units import SECOND_NS

MAC: Final = bytes.fromhex("020000000102")
LAN: Final = Subnet("tap0", 0xC0A8C800, 24)
SETTINGS: Final = ClientSettings(MAC, limits=LeaseLimits(taken=(LAN,)))
SERVERS: Final = (0xC0A80101, 0xC0A80109, 0, 0xFFFFFFFF)
ADDRESSES: Final = (0xC0A80132, 0xC0A80133, 0xC0A8C807, 0, 0xE0000001, 0x0A000005)
SECONDS: Final = (0, 0.5, 4, 8, 60, 1800, 3150, 10_000)
VALUES: Final = {
    option.SUBNET_MASK: ("ffffff00", "ffff0000", "ffffffff", "00ffff00", "ff"),
    option.ROUTER: ("c0a80101", "0a090901", "c0a80101c0a80102", "00"),
    option.DNS_SERVERS: ("c0a80101", "", "0102"),
    option.DOMAIN_NAME: ("69737000", "1b5b32"),
    option.INTERFACE_MTU: ("0578", "0044", "ffff"),
    option.LEASE_TIME: ("00000e10", "ffffffff", "00000001", "0000003c", "00"),
    option.OVERLOAD: ("00", "01", "02", "03", "07"),
    option.RENEWAL_TIME: ("00000384", "ffffffff"),
    option.REBINDING_TIME: ("00000a8c", "00000000"),
    option.CLASSLESS_ROUTES: ("00c0a80101", "200a0909010000000000" + "0a090901", "21"),
    option.MESSAGE_TEXT: ("6e6f", "1b00ff"),
    option.CLIENT_IDENTIFIER: ("00",),
}
_ORDINARY: Final = (option.SUBNET_MASK, option.ROUTER, option.DNS_SERVERS, option.LEASE_TIME)
_BEARS_LEASE: Final = (ClientState.BOUND, ClientState.RENEWING, ClientState.REBINDING)


class Round:
    """One client. `lease`: what its effects have given the port; `xid`: of its latest message; `last`: the latest input
    in words."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = 1000 * SECOND_NS
        self.client = Client(SETTINGS, random.Random(1), random.Random(2))
        self.lease: Lease | None = None
        self.xid = 0
        self.last = "the start"
        self.take(self.client.start(self.now, self.remembered()), most=1)

    def remembered(self) -> Lease | None:
        """The file of an earlier run, spoiled or not."""
        rng = self.rng
        lease = Lease(rng.choice(ADDRESSES), rng.choice((0, 24, 32)), SERVERS[0], SERVERS[0], 3600, 1800, 3150)
        found = saved.read(mutated(saved.write(SavedLease(MAC, lease, None)), rng), MAC)
        return found.lease if found is not None else None

    def answer(self) -> bytes:
        """A server's packet: in one of two the answer that the client waits for, with at most one option changed."""
        rng = self.rng
        if rng.random() < 0.5:
            kind: int = Kind.OFFER if self.client.state is ClientState.SELECTING else Kind.ACK
            options = {code: bytes.fromhex(values[0]) for code, values in VALUES.items() if code in _ORDINARY}
            for code in rng.choices(list(VALUES), k=rng.randrange(2)):
                options[code] = bytes.fromhex(rng.choice(VALUES[code]))
            options[option.SERVER_IDENTIFIER] = SERVERS[0].to_bytes(4, "big")
            return self.packet(kind, self.xid, MAC, list(options.items()), ADDRESSES[0], is_spoiled=False)
        kind = rng.choice((Kind.OFFER, Kind.ACK, Kind.NAK, Kind.FORCERENEW, 0, 18))
        chosen = [
            (code, bytes.fromhex(rng.choice(VALUES[code]))) for code in rng.choices(list(VALUES), k=rng.randrange(8))
        ]
        if rng.random() < 0.9:
            chosen.append((option.SERVER_IDENTIFIER, rng.choice(SERVERS).to_bytes(4, "big")))
        if rng.random() < 0.6:
            chosen += [(option.LEASE_TIME, b"\0\0\x0e\x10"), (option.SUBNET_MASK, b"\xff\xff\xff\0")]
        xid = self.xid if rng.random() < 0.9 else rng.getrandbits(32)
        mac = MAC if rng.random() < 0.95 else rng.randbytes(6)
        return self.packet(kind, xid, mac, chosen, rng.choice(ADDRESSES), is_spoiled=rng.random() < 0.4)

    def packet(
        self, kind: int, xid: int, mac: bytes, options: list[tuple[int, bytes]], address: int, *, is_spoiled: bool
    ) -> bytes:
        """It as IPv4, without a checksum, so that spoiled bytes are read."""
        payload = bytearray(message.write(Kind.DISCOVER, xid, mac, options))
        payload[0] = self.rng.randrange(4) if is_spoiled else 2
        payload[16:20] = address.to_bytes(4, "big")
        payload[payload.index(b"\x35\x01\x01") + 2] = kind
        sent = mutated(bytes(payload), self.rng) if is_spoiled else bytes(payload)
        packet = bytearray(datagram.unicast(SERVERS[0], ipv4.BROADCAST, sent[:2000]))
        packet[20:24] = b"\x00\x43\x00\x44"
        packet[26:28] = bytes(2)
        return bytes(packet)

    def step(self) -> None:
        """One input; `last` says which."""
        rng, client = self.rng, self.client
        kind = rng.randrange(10)
        if kind < 6:
            data = self.answer()
            self.last = data.hex()
            packet = ipv4.parse(data)
            if isinstance(packet, Packet) and ipv4.read_transport(packet) is None:
                self.take(client.receive(packet, self.now), most=2)
        elif kind < 8:
            self.last = "time"
            self.wait(rng.choice(SECONDS))
        else:
            acts = (client.renew, client.reattach, client.conflict, client.release)
            act = rng.choices(acts, weights=(4, 4, 4, 1))[0]
            self.last = act.__name__
            self.take(act(self.now), most=2)

    def wait(self, seconds: float) -> None:
        """The clock runs; timers fire at their own times, as many as there are in the seconds."""
        end = self.now + round(seconds * SECOND_NS)
        fired = 0
        while (due := self.client.next_deadline()) is not None and due <= end:
            self.now = due
            self.take(self.client.tick(due), most=2)
            after = self.client.next_deadline()
            fired += 1
            if (after is not None and after <= due) or fired > 2 + seconds:
                raise Failure(f"a timer does not move on from {due}, after {fired}")
        self.now = end

    def take(self, effects: list[ClientEffect], most: int) -> None:
        """Carry out the effects as the gateway would, and check all rules behind them."""
        left = 0
        reasons = [effect.reason for effect in effects if isinstance(effect, MessageDropped)]
        if reasons not in ([], [Drop.DHCP_REFUSED]) and len(effects) > 1:
            raise Failure(f"a message that was dropped did something: {effects}")
        for effect in effects:
            if isinstance(effect, Broadcast):
                left += 1
                self.look_at(ipv4.parse(effect.frame, 14))
            elif isinstance(effect, Submit):
                left += 1
                self.look_at(ipv4.parse(effect.packet))
            elif isinstance(effect, Assume):
                self.lease = effect.lease
            elif isinstance(effect, Vacate):
                self.lease = None
        if left > most:
            raise Failure(f"{left} messages left for one input")
        self.look_at_client()

    def look_at(self, packet: Packet | Drop) -> None:
        """A message of ours."""
        if not isinstance(packet, Packet):
            raise Failure(f"a packet of ours is {packet}")
        ipv4.read_transport(packet)
        read = datagram.read(packet)
        if not isinstance(read, Message) or len(packet.data) < 328:
            raise Failure(f"a message of ours is {read}")
        self.xid = read.xid
        requested = option.number_in(read.options, option.REQUESTED_ADDRESS) or read.ciaddr
        if read.kind == Kind.REQUEST and LAN.overlaps(requested, 32):
            raise Failure("an address of the LAN was requested")

    def look_at_client(self) -> None:
        """State, lease and timers agree."""
        client, lease = self.client, self.client.lease
        if lease != self.lease:
            raise Failure("the port has another lease than the client")
        if client.state in _BEARS_LEASE and lease is None:
            raise Failure(f"{client.state} without a lease")
        if client.next_deadline() is None and client.state not in (ClientState.INIT, ClientState.BOUND):
            raise Failure(f"{client.state} waits for nothing")
        if lease is None:
            return
        if conflict_of(lease, SETTINGS.limits) is not None:
            raise Failure(f"{lease} does not fit")
        if lease.mtu_bytes is not None and not 576 <= lease.mtu_bytes <= 1500:
            raise Failure(f"an MTU of {lease.mtu_bytes}")
        if lease.duration_s is not None and not 0 < (lease.renew_s or 0) < (lease.rebind_s or 0) < lease.duration_s:
            raise Failure(f"timers out of order: {lease}")


def episode(rng: random.Random, most: int) -> int:
    """One client's life."""
    round_ = Round(rng)
    number = 0
    while goes_on(rng, number, most):
        try:
            round_.step()
        except Exception as error:
            raise Broken(f"input {number}: {round_.last}") from error
        number += 1
    return number


TARGET = Target("dhcp", episode)
