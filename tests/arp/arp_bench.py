"""A LAN for one ArpPort: 192.168.200.0/24, ours is .2, under a virtual clock. Frames are written byte by byte and read
by dpkt, so that the room's own format code is not its own judge."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable

import dpkt

from arp.effects import ArpEffect, Entry, EntryChanged, FrameDropped, GaveUp, Release, Transmit
from arp.port import ArpPort
from arp.waiting import WaitingLimits
from wire.drop import Drop
from wire.units import address_int, mac_bytes, mac_text, seconds_ns

OWN, OWN_MAC = address_int("192.168.200.2"), mac_bytes("02:00:00:00:c8:02")
A, A_MAC = address_int("192.168.200.10"), mac_bytes("02:aa:00:00:00:0a")
B, B_MAC = address_int("192.168.200.11"), mac_bytes("02:aa:00:00:00:0b")
C = address_int("192.168.200.12")
OTHER_MAC, THIRD_MAC = mac_bytes("02:bb:00:00:00:01"), mac_bytes("02:bb:00:00:00:02")
EVERYBODY, NOBODY = b"\xff" * 6, bytes(6)
REQUEST, REPLY = 1, 2
FRAME_BYTES = 1514


def arp_frame(
    opcode: int,
    sender: int,
    sender_mac: bytes,
    target: int,
    *,
    target_mac: bytes = NOBODY,
    to: bytes = EVERYBODY,
    link_source: bytes | None = None,
    head: bytes = b"\0\x01\x08\0\x06\x04",
    ethertype: bytes = b"\x08\x06",
    padding: bytes = bytes(18),
) -> bytes:
    """An ARP packet in its frame; `head`: hardware type, protocol type and the two lengths."""
    addresses = sender_mac + struct.pack("!I", sender) + target_mac + struct.pack("!I", target)
    return to + (link_source or sender_mac) + ethertype + head + struct.pack("!H", opcode) + addresses + padding


def asks(sender: int, mac: bytes, target: int = OWN) -> bytes:
    return arp_frame(REQUEST, sender, mac, target)


def answers(sender: int, mac: bytes) -> bytes:
    return arp_frame(REPLY, sender, mac, OWN, target_mac=OWN_MAC, to=OWN_MAC)


def announces(sender: int, mac: bytes) -> bytes:
    return arp_frame(REQUEST, sender, mac, sender)


def text(effect: ArpEffect) -> str:
    """An effect in words: what a person would say who watches the wire."""
    match effect:
        case Transmit(frame):
            assert len(frame) == 60, "padded to the wire's minimum"
            ethernet = dpkt.ethernet.Ethernet(frame)
            arp = ethernet.data
            assert isinstance(arp, dpkt.arp.ARP)
            assert (arp.hln, arp.pln, arp.pro, ethernet.src, arp.sha) == (6, 4, 0x0800, OWN_MAC, OWN_MAC)
            assert frame[42:] == bytes(18)
            to = "all" if ethernet.dst == EVERYBODY else mac_text(ethernet.dst)
            sender, target = (".".join(map(str, value)) for value in (arp.spa, arp.tpa))
            if arp.op == REPLY:
                return f"reply to {to}: {sender} is ours, {target} at {mac_text(arp.tha)}"
            assert (arp.op, arp.tha) == (REQUEST, NOBODY)
            if sender == "0.0.0.0":
                return f"probe {target}"
            return f"announce {target}" if sender == target else f"ask {to} for {target}"
        case Release(mac, waiting):
            return f"release {waiting} to {mac_text(mac)}"
        case GaveUp(reason, waiting):
            return f"gave up {waiting}: {reason}"
        case FrameDropped(reason):
            return f"dropped: {reason}"
        case EntryChanged():
            return f"{effect.change} {effect.address & 255}"


class Bench:
    """One port, and the time in seconds as the argument of everything. Only frames and drops are told in words;
    `changes` keeps the events."""

    def __init__(
        self,
        static: dict[int, bytes] | None = None,
        limits: WaitingLimits | None = None,
        seed: int = 0,
        address: int = OWN,
        prefix_length: int = 24,
        beyond: int = 0,
    ) -> None:
        self.port = ArpPort(
            address,
            prefix_length,
            OWN_MAC,
            static or {},
            random.Random(seed),
            limits=limits or WaitingLimits(),
            beyond=beyond,
        )
        self.changes: list[EntryChanged] = []

    def words(self, effects: Iterable[ArpEffect]) -> list[str]:
        told = []
        for effect in effects:
            if isinstance(effect, EntryChanged):
                self.changes.append(effect)
            else:
                told.append(text(effect))
        return told

    def hears(self, frame: bytes, t: float) -> list[str]:
        return self.words(self.port.receive(frame, seconds_ns(t)))

    def holds(self, address: int, waiting: object, t: float) -> list[str]:
        return self.words(self.port.hold(address, waiting, FRAME_BYTES, seconds_ns(t)))

    def finds(self, address: int, t: float) -> bytes | None:
        return self.port.lookup(address, seconds_ns(t))

    def runs_until(self, t: float) -> list[tuple[float, str]]:
        """Fire every timer at its own time, up to and including `t`."""
        told: list[tuple[float, str]] = []
        while (due := self.port.next_deadline()) is not None and due <= seconds_ns(t):
            told += [(round(due / 1e9, 9), said) for said in self.words(self.port.tick(due))]
        return told

    def entry(self, address: int, t: float) -> Entry | None:
        return next((entry for entry in self.port.entries(seconds_ns(t)) if entry.ip == address), None)

    def state(self, address: int, t: float) -> str | None:
        entry = self.entry(address, t)
        return entry.state if entry else None

    def mac(self, address: int, t: float) -> bytes | None:
        entry = self.entry(address, t)
        return entry.mac if entry else None

    def knows(self, address: int, mac: bytes, t: float) -> None:
        """Ask for an address and have it answered at once: REACHABLE."""
        self.holds(address, "first", t)
        self.hears(answers(address, mac), t)
        assert self.state(address, t) == "reachable"


NOT_FOR_US = [f"dropped: {Drop.ARP_NOT_FOR_US}"]
BAD_SENDER = [f"dropped: {Drop.ARP_SENDER}"]
MALFORMED = [f"dropped: {Drop.ARP_MALFORMED}"]
LOCKED = [f"dropped: {Drop.ARP_LOCKED}"]
