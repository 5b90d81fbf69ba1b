"""Datagrams for ourselves: services take those they want, and nothing listens for the rest.

To add a service, write a `Service` (`bridge.walk.outcome`) and hand it to `Gateway.add_service`; `early` where it must
see packets before the check for martians (a DHCP client hears frames to 255.255.255.255).

RFC 1122 3.2.2.1 and 4.2.3.9, RFC 1812 4.3.3.6 (echo).
"""

from __future__ import annotations

from bridge.walk.effects import Effect
from bridge.walk.messages import Messages
from bridge.walk.outcome import (
    PORT_UNREACHABLE,
    PROTOCOL_UNREACHABLE,
    Answer,
    Outcome,
    Refused,
    Service,
    TakenIn,
    Wanted,
)
from bridge.walk.path import Arrival
from bridge.walk.settings import IcmpSettings
from bridge.walk.trace import Tracing
from icmp import responder
from wire import ipv4
from wire.drop import Drop


class Echo(Service):
    """Answers echo requests to every address of ours (RFC 1812 4.3.3.6), from the ISP side where settings let it."""

    def __init__(self, messages: Messages, tracing: Tracing, settings: IcmpSettings) -> None:
        self._messages = messages
        self._tracing = tracing
        self.answers_on_tap1 = settings.answer_on_tap1

    def wants(self, arrival: Arrival) -> bool:
        """True for an echo request."""
        return responder.is_echo_request(arrival.packet) and (
            self.answers_on_tap1 or arrival.port.interface.name != "tap1"
        )

    def receive(self, arrival: Arrival, now: int, effects: list[Effect]) -> Answer | Refused | TakenIn:
        """The echo reply; a request with a bad checksum meets silence."""
        request = arrival.packet
        if not responder.has_valid_transport_checksum(request):
            return Refused(Drop.ICMP_CHECKSUM)
        self._tracing.say("icmp", "echo request for {}: ours, answered", request.destination)
        return Answer(responder.echo_reply(request, self._messages.next_identification()))


class Local:
    """The services in the order in which they are asked. `early`: asked before the check for martians; `services`:
    asked about packets to an address of ours. `Gateway.add_service` adds to them."""

    def __init__(self, messages: Messages, tracing: Tracing, settings: IcmpSettings) -> None:
        self._messages = messages
        self._echo = Echo(messages, tracing, settings)
        self.early: tuple[Service, ...] = ()
        self.services: tuple[Service, ...] = (self._echo,)

    def reconfigure(self, settings: IcmpSettings) -> None:
        """Take other settings."""
        self._echo.answers_on_tap1 = settings.answer_on_tap1

    def wanted_early(self, arrival: Arrival) -> Wanted | None:
        """The service that wants a packet whatever its addresses are; None where none does."""
        return _first(self.early, arrival)

    def wanted(self, arrival: Arrival) -> Wanted | None:
        """The service that wants a packet to an address of ours; None where none does."""
        return _first(self.services, arrival)

    def closed(self, arrival: Arrival) -> Outcome:
        """Nothing listens: a reset for TCP, 3/3 for UDP, 3/2 for other protocols, silence for ICMP and for packets with
        a bad checksum (RFC 1122 3.2.2.1, 4.2.3.9)."""
        packet = arrival.packet
        if packet.protocol == ipv4.ICMP:
            return Refused(Drop.LOCAL_SILENT)
        if not packet.is_fragment and not responder.has_valid_transport_checksum(packet):
            return Refused(Drop.LOCAL_SILENT)
        if packet.protocol == ipv4.UDP:
            return Refused(Drop.LOCAL_PORT, PORT_UNREACHABLE)
        if packet.protocol != ipv4.TCP:
            return Refused(Drop.LOCAL_PROTOCOL, PROTOCOL_UNREACHABLE)
        if packet.is_fragment:
            return Refused(Drop.LOCAL_PORT)
        reset = responder.reset(packet, self._messages.next_identification())
        return Refused(Drop.LOCAL_PORT) if reset is None else Answer(reset)


def _first(services: tuple[Service, ...], arrival: Arrival) -> Wanted | None:
    for service in services:
        if service.wants(arrival):
            return Wanted(service)
    return None
