"""An ISP's network for one client under a virtual clock. Servers' messages are written, and the client's are read, by
scapy, so that the room's own format code is not its own judge."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from dhcp.client import Client
from dhcp.effects import Assume, Broadcast, ClientEffect, LeaseChanged, MessageDropped, Remember, Submit, Vacate
from dhcp.lease import Lease
from dhcp.settings import ClientSettings, LeaseLimits, Subnet
from wire import ipv4
from wire.ipv4 import Packet
from wire.units import address_int, address_text, mac_bytes, seconds_ns

MAC = mac_bytes("02:00:00:00:01:02")
LAN = Subnet("tap0", address_int("192.168.200.0"), 24)
SETTINGS = ClientSettings(MAC, limits=LeaseLimits(taken=(LAN,)))
SERVER, OTHER_SERVER = "192.168.1.1", "192.168.1.9"
ADDRESS = "192.168.1.50"
KINDS = {1: "discover", 2: "offer", 3: "request", 4: "decline", 5: "ack", 6: "nak", 7: "release", 9: "forcerenew"}
NUMBERS = {name: number for number, name in KINDS.items()}

Options = list[tuple[Any, ...] | str]


def granted(*more: tuple[Any, ...], mask: str = "255.255.255.0", router: str = SERVER, lease: int = 3600) -> Options:
    """The options of an ordinary offer."""
    return [("subnet_mask", mask), ("router", router), ("name_server", "192.168.1.1"), ("lease_time", lease), *more]


def reply(
    kind: str,
    xid: int,
    options: Options | None = None,
    *,
    address: str = ADDRESS,
    server: str | None = SERVER,
    mac: bytes = MAC,
    op: int = 2,
    port: int = 68,
    **fixed: Any,
) -> bytes:
    """A server's message as an IPv4 packet."""
    named: Options = [("message-type", NUMBERS[kind])]
    if server is not None:
        named.append(("server_id", server))
    body = BOOTP(op=op, xid=xid, yiaddr=address, chaddr=mac, **fixed) / DHCP(options=[*named, *(options or []), "end"])
    return bytes(IP(src=server or SERVER, dst="255.255.255.255") / UDP(sport=67, dport=port) / body)


def packet_of(data: bytes) -> Packet:
    read = ipv4.parse(data)
    assert isinstance(read, Packet)
    assert ipv4.read_transport(read) is None
    return read


class Sent:
    """A message of the client, as scapy reads it. `to`: `all` or the server's address."""

    def __init__(self, data: bytes, *, is_frame: bool) -> None:
        self.layers = Ether(data) if is_frame else IP(data)
        ip = self.layers[IP]
        again = ip.copy()
        del again.chksum, again[UDP].chksum
        assert bytes(again) == bytes(ip), "the checksums and lengths are those that scapy computes"
        if is_frame:
            assert self.layers.dst == "ff:ff:ff:ff:ff:ff"
            assert ip.dst == "255.255.255.255"
        self.bootp = self.layers[BOOTP]
        self.size = len(bytes(self.bootp))
        self.named = dict(option[:2] for option in self.layers[DHCP].options if isinstance(option, tuple))
        self.kind = KINDS[self.named["message-type"]]
        self.source, self.to = ip.src, "all" if is_frame else ip.dst
        self.xid = self.bootp.xid

    @property
    def words(self) -> str:
        told = f"{self.kind} to {self.to} from {self.source}"
        parts = (
            ("ciaddr", self.bootp.ciaddr.replace("0.0.0.0", "")),
            ("address", self.named.get("requested_addr", "")),
            ("server", self.named.get("server_id", "")),
        )
        return told + "".join(f" {name}={value}" for name, value in parts if value)


class Bench:
    """One client. Effects become words: `sent` keeps the messages, `leases` what the port was to assume."""

    def __init__(self, settings: ClientSettings = SETTINGS, seed: int = 0) -> None:
        self.client = Client(settings, random.Random(seed), random.Random(seed + 1))
        self.sent: list[Sent] = []
        self.leases: list[Lease | None] = []
        self.remembered: list[Lease | None] = []
        self.now = 0.0

    # The gateway's side

    def starts(self, t: float = 0, remembered: Lease | None = None) -> list[str]:
        self.now = t
        return self.words(self.client.start(seconds_ns(t), remembered))

    def does(self, name: str, t: float, *arguments: object) -> list[str]:
        """`renew`, `release`, `reattach`, `conflict` or `reconfigure`."""
        self.now = t
        return self.words(getattr(self.client, name)(*arguments, seconds_ns(t)))

    def runs_until(self, t: float) -> list[tuple[float, str]]:
        """The clock runs; each timer fires at its own time."""
        told: list[tuple[float, str]] = []
        while (due := self.client.next_deadline()) is not None and due <= seconds_ns(t):
            told += [(due / 1e9, word) for word in self.words(self.client.tick(due))]
            after = self.client.next_deadline()
            assert after is None or after > due, "a tick leaves a later deadline"
        self.now = t
        return told

    # The network's side

    def hears(self, data: bytes, t: float | None = None) -> list[str]:
        self.now = self.now if t is None else t
        return self.words(self.client.receive(packet_of(data), seconds_ns(self.now)))

    def answers(self, kind: str, options: Options | None = None, t: float | None = None, **more: Any) -> list[str]:
        """A server answers the client's latest message."""
        if options is None and kind != "nak":
            options = granted()
        return self.hears(reply(kind, self.sent[-1].xid, options, **more), t)

    def bound(self, options: Options | None = None, t: float = 0, **more: Any) -> Bench:
        """From the start to BOUND, all at `t`."""
        self.starts(t)
        self.answers("offer", options, t, **more)
        self.answers("ack", options, t, **more)
        assert self.client.state == "bound"
        return self

    def words(self, effects: Iterable[ClientEffect]) -> list[str]:
        return [self.word(effect) for effect in effects]

    def word(self, effect: ClientEffect) -> str:
        match effect:
            case Broadcast(frame):
                self.sent.append(Sent(frame, is_frame=True))
                return self.sent[-1].words
            case Submit(data):
                self.sent.append(Sent(data, is_frame=False))
                return self.sent[-1].words
            case Assume(lease):
                self.leases.append(lease)
                return f"assume {address_text(lease.address)}/{lease.prefix_length} by {address_text(lease.gateway)}"
            case Vacate():
                self.leases.append(None)
                return "vacate"
            case Remember(lease):
                self.remembered.append(lease)
                return "forget" if lease is None else "remember"
            case MessageDropped(reason):
                return f"dropped: {reason}"
            case LeaseChanged(change, address, _):
                return f"lease {change} {address_text(address)}"
