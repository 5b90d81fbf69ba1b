"""Our own messages: ICMP errors, and the IP identification of all that we send ourselves.

RFC 1812 4.3 (errors, their source address and their rate), RFC 6864 (identification).
"""

from __future__ import annotations

from bridge.walk.counters import Counters
from bridge.walk.interface import Interface
from bridge.walk.outcome import IcmpError
from bridge.walk.own import OwnAddresses
from bridge.walk.path import Arrival
from bridge.walk.settings import IcmpSettings
from bridge.walk.trace import Tracing
from icmp import errors
from wire import gso, ipv4
from wire.ipv4 import Packet


class Messages:
    """Writes our messages. `identification`: the first IP identification, 16 bits."""

    def __init__(
        self, own: OwnAddresses, counters: Counters, tracing: Tracing, settings: IcmpSettings, identification: int
    ) -> None:
        self._own = own
        self._counters = counters
        self._tracing = tracing
        self._identification = identification
        self.reconfigure(settings)

    def reconfigure(self, settings: IcmpSettings) -> None:
        """Take other settings; the rate limit begins anew."""
        self._rate_limit = errors.RateLimit(settings.errors_per_second)
        self._muted = settings.mute

    def next_identification(self) -> int:
        """A fresh IP identification for a packet of our own."""
        self._identification = (self._identification + 1) & 0xFFFF
        return self._identification

    def error(self, arrival: Arrival, error: IcmpError, now: int) -> Packet | None:
        """The ICMP error about a packet that came in; None where RFC 1812 4.3.2.7, `icmp.mute` or the rate limit
        forbids it."""
        interface, packet = arrival.port.interface, arrival.packet
        source = self._speaker_to(packet) if interface.name == "tun0" else interface.address or self._own.speaker
        may_answer = source != 0 and errors.may_answer(packet, group=arrival.group)
        if not self.may_tell(interface, packet.source, now, may_answer=may_answer):
            self._tracing.say("icmp", "{} owed, not sent", f"{error.kind}/{error.code}")
            return None
        quoted = packet.data
        if packet.gso is not None:
            quoted = next(gso.segment(bytearray(packet.data), packet.gso))
        message = errors.error(
            error.kind,
            error.code,
            quoted,
            source=source,
            destination=packet.source,
            identification=self.next_identification(),
            rest=error.rest,
        )
        self._tracing.say("icmp", "{} to {}", f"{error.kind}/{error.code}", packet.source)
        return Packet(bytearray(message), None)

    def undelivered(self, quoted: Packet, source: int | None, mtu_bytes: int) -> Packet | None:
        """Our 3/1 (RFC 1812 5.2.7.1) about a packet as it left, or 3/4 where `mtu_bytes` is not 0; None where no error
        is owed. `source`: the address that it speaks for, None for ourselves. The message has yet to find its way."""
        source = self._speaker_to(quoted) if source is None else source
        if not source or not errors.may_answer(quoted, group=False):
            return None
        data = errors.error(
            errors.UNREACHABLE,
            errors.FRAGMENTATION_NEEDED if mtu_bytes else errors.HOST,
            quoted.data,
            source=source,
            destination=quoted.source,
            identification=self.next_identification(),
            rest=mtu_bytes,
        )
        message = ipv4.parse(data, 0, None)
        assert isinstance(message, Packet)
        ipv4.read_transport(message)
        return message

    def may_tell(self, interface: Interface, host: int, now: int, *, may_answer: bool) -> bool:
        """Whether an ICMP error that the RFC allows may go to `host` behind `interface`: `icmp.mute` and the rate limit
        decide. Counts it as sent or as suppressed."""
        if may_answer and interface.name not in self._muted and self._rate_limit.allows(host, now):
            self._counters.icmp_errors += 1
            return True
        self._counters.icmp_errors_suppressed += 1
        return False

    def _speaker_to(self, about: Packet) -> int:
        """The source of an error to the host behind tun0, 0 where there is none. Where we have no address but the
        host's own, the error speaks for the destination of the packet: the host refuses packets from its own
        address."""
        own = self._own
        return about.destination if own.speaker_to_host == own.host else own.speaker_to_host
