"""An ARP frame comes in: check it, learn from it, answer it.

RFC 826 *Packet Reception*: `Responder.receive` and `_from_host`, in its order: formats, then the sender's entry if
there is one, then "am I the target", then a new entry, and only then the opcode. RFC 1812 3.3.2 (a group address is no
station's): `receive`. RFC 5227 2.1.1 (probes leave no trace): `_probed`; 2.4 (conflicts): `_contested`. No proxy ARP
(RFC 1027): nobody's address but our own is answered for.
"""

from __future__ import annotations

from typing import Final

from arp import packet
from arp.announcer import Announcer
from arp.effects import ArpEffect, EntryChanged, FrameDropped, Transmit
from arp.packet import ArpPacket
from arp.resolver import Claim, Resolver
from wire.drop import Drop
from wire.ethernet import NO_MAC, is_group
from wire.units import SECOND_NS

STRANGERS_PER_SECOND: Final = 1000
STRANGERS_BURST: Final = 1000
_STRANGER_NS: Final = SECOND_NS // STRANGERS_PER_SECOND


class Responder:
    """The receiving side of a port. `sender_mismatches`: frames whose Ethernet source was not their ARP sender; the
    ARP sender was believed, as RFC 826 has it."""

    __slots__ = ("_announcer", "_resolver", "_room_from_ns", "sender_mismatches")

    def __init__(self, resolver: Resolver, announcer: Announcer) -> None:
        self._resolver = resolver
        self._announcer = announcer
        self._room_from_ns = 0  # when the bucket of strangers is (or was) full again
        self.sender_mismatches = 0

    def receive(self, frame: bytes | bytearray | memoryview, now: int) -> list[ArpEffect]:
        """Take in an Ethernet frame with an ARP packet. The effects hold a `FrameDropped` where it taught or asked us
        nothing."""
        heard = packet.parse(frame)
        if isinstance(heard, Drop):
            return [FrameDropped(heard)]
        own = self._resolver
        if not own.address:  # nobody's neighbour, until the port has an address
            return [FrameDropped(Drop.ARP_NOT_FOR_US)]
        if heard.link_destination != own.mac and not is_group(heard.link_destination):
            return [FrameDropped(Drop.ETH_NOT_FOR_US)]
        if is_group(heard.sender_mac) or heard.sender_mac in (NO_MAC, own.mac):
            return [FrameDropped(Drop.ARP_SENDER)]
        if heard.link_source != heard.sender_mac:
            self.sender_mismatches += 1
        if own.is_resolvable(heard.sender):
            return self._from_host(heard, now)
        if heard.opcode not in (packet.REQUEST, packet.REPLY):
            return [FrameDropped(Drop.ARP_OPCODE)]
        if heard.sender == own.address:
            return self._contested(heard, now)
        if heard.sender == 0 and heard.opcode == packet.REQUEST:
            return self._probed(heard, now)
        if heard.opcode == packet.REQUEST and own.is_foreign(heard.sender):
            return self._asked_from_afar(heard, now)
        return [FrameDropped(Drop.ARP_SENDER)]

    def _from_host(self, heard: ArpPacket, now: int) -> list[ArpEffect]:
        """From an address that may be in the table: merge, add, answer."""
        own = self._resolver
        ours = heard.target == own.address
        answer = heard.opcode == packet.REPLY and ours and heard.link_destination == own.mac
        understood = heard.opcode in (packet.REQUEST, packet.REPLY)
        claim = own.judge(heard.sender, heard.sender_mac, now)
        if claim is Claim.UNKNOWN and not (ours and understood):
            return [FrameDropped(Drop.ARP_NOT_FOR_US if understood else Drop.ARP_OPCODE)]
        is_awaited = answer and own.is_questioned(heard.sender)
        is_stranger = claim in (Claim.UNKNOWN, Claim.REFUSED, Claim.CONTESTED) and not is_awaited
        if is_stranger and ours and not self._admit_stranger(now):
            return [FrameDropped(Drop.ARP_RATE_LIMITED)]
        if claim is Claim.REFUSED:
            effects = [FrameDropped(Drop.ARP_LOCKED), *own.refuse(heard.sender, heard.sender_mac, now)]
        elif claim is Claim.CONTESTED:
            effects = own.contest(heard.sender, heard.sender_mac, now, answer=answer)
        else:
            effects = own.learn(heard.sender, heard.sender_mac, now, answer=answer)
        if not understood:
            effects.append(FrameDropped(Drop.ARP_OPCODE))
        elif not ours and claim is Claim.SAME:
            effects.append(FrameDropped(Drop.ARP_NOT_FOR_US))
        elif ours and heard.opcode == packet.REQUEST:
            effects.append(self._reply(heard))
        return effects

    def _probed(self, heard: ArpPacket, now: int) -> list[ArpEffect]:
        """Somebody wants to know whether an address is free. Ours is not; nothing is learned."""
        if heard.target != self._resolver.address:
            return [FrameDropped(Drop.ARP_NOT_FOR_US)]
        if not self._admit_stranger(now):
            return [FrameDropped(Drop.ARP_RATE_LIMITED)]
        effects: list[ArpEffect] = [self._reply(heard)]
        if self._announcer.rival(now).notable:
            effects.append(self._conflict_told(heard))
        return effects

    def _asked_from_afar(self, heard: ArpPacket, now: int) -> list[ArpEffect]:
        """A neighbour asks under an address of another subnet, as kernels do that have one on another interface (a
        router on its loopback): RFC 826 answers it. Nothing is learned, the table has no slot for it."""
        if heard.target != self._resolver.address:
            return [FrameDropped(Drop.ARP_NOT_FOR_US)]
        return [self._reply(heard)] if self._admit_stranger(now) else [FrameDropped(Drop.ARP_RATE_LIMITED)]

    def _contested(self, heard: ArpPacket, now: int) -> list[ArpEffect]:
        """Somebody else sends from our address."""
        effects: list[ArpEffect] = [FrameDropped(Drop.ARP_CONFLICT)]
        outcome = self._announcer.conflict(now)
        if outcome.notable:
            effects.append(self._conflict_told(heard))
        if outcome.frame is not None:
            effects.append(Transmit(outcome.frame))
        return effects

    def _conflict_told(self, heard: ArpPacket) -> EntryChanged:
        return EntryChanged(self._resolver.address, heard.sender_mac, "conflict", "conflict", heard.sender_mac)

    def _reply(self, heard: ArpPacket) -> Transmit:
        return Transmit(packet.reply(self._resolver.mac, self._resolver.address, heard))

    def _admit_stranger(self, now: int) -> bool:
        """A token bucket for packets to us from senders that the table does not know under that MAC address. Known
        hosts, their accepted changes of MAC address and answers to our questions never need a token."""
        if self._room_from_ns > now + (STRANGERS_BURST - 1) * _STRANGER_NS:
            return False
        self._room_from_ns = max(self._room_from_ns, now) + _STRANGER_NS
        return True
