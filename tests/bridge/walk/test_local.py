"""Datagrams for ourselves: services are asked in their order, and one that asks early sees packets before the check for
martians."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from bridge.walk import balance
from bridge.walk.effects import Effect, Send
from bridge.walk.gateway import Gateway
from bridge.walk.outcome import TAKEN, Answer, Refused, Service, TakenIn
from bridge.walk.path import Arrival
from trials.fuzz.targets.flow import packet
from trials.fuzz.targets.frames import MACS, WORLDS, gateway_of
from trials.soak.world import fragments
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import ICMP, UDP
from wire.units import SECOND_NS, address_int

A, US, TAP1, ROUTER, REMOTE = map(
    address_int, ("192.168.200.10", "192.168.200.2", "192.168.1.2", "192.168.1.1", "203.0.113.5")
)
NAMES = 53


@pytest.fixture
def gateway() -> Gateway:
    return gateway_of(WORLDS[0].configuration, 1)


@dataclass
class Listener(Service):
    """Hears datagrams to a UDP port and gives each of them the same outcome; its timer sends a frame once."""

    port: int
    outcome: Answer | Refused | TakenIn = TAKEN
    due_ns: int | None = None
    heard: list[bytes] = field(default_factory=list)

    def wants(self, arrival: Arrival) -> bool:
        packet = arrival.packet
        if packet.protocol != UDP or packet.offset_bytes or ipv4.read_transport(packet) is not None:
            return False
        return packet.destination_port == self.port

    def receive(self, arrival: Arrival, now: int, effects: list[Effect]) -> Answer | Refused | TakenIn:
        self.heard.append(bytes(arrival.packet.data))
        return self.outcome

    def tick(self, now: int, effects: list[Effect]) -> None:
        if self.due_ns is not None and now >= self.due_ns:
            self.due_ns = None
            effects.append(Send("tap1", b"question", None))

    def next_deadline(self) -> int | None:
        return self.due_ns


def feed(gateway: Gateway, port: str, data: bytes) -> list[Effect]:
    effects = gateway.receive(port, MACS[port] + b"\x08\x00" + data, 0)
    balance.check(gateway)
    return effects


def fates(gateway: Gateway, port: str) -> dict[str, int]:
    return {fate: number for fate, number in balance.accounts(gateway)[port].fates.items() if number}


def test_a_service_takes_datagrams_to_our_address_that_nothing_else_listens_for(gateway: Gateway) -> None:
    names = Listener(NAMES)
    question = packet(UDP, (A, 5000, US, NAMES))
    feed(gateway, "tap0", question)
    assert fates(gateway, "tap0") == {"dropped": 1}, "3/3: nothing listens yet"
    gateway.add_service(names)
    assert feed(gateway, "tap0", question) == []
    assert names.heard == [question]
    assert fates(gateway, "tap0") == {"dropped": 1, "taken": 1}
    feed(gateway, "tap0", packet(UDP, (A, 5000, US, NAMES + 1)))
    feed(gateway, "tap0", packet(UDP, (A, 5000, REMOTE, NAMES)))
    assert names.heard == [question], "another port, and a datagram that goes through"


@pytest.mark.parametrize(
    ("outcome", "fate"),
    [(Answer(ipv4.Packet(bytearray(packet(UDP, (US, NAMES, A, 5000))), None)), "answered"), (TAKEN, "taken")],
)
def test_a_fragmented_datagram_reaches_its_service_whole(gateway: Gateway, outcome: Any, fate: str) -> None:
    names = Listener(NAMES, outcome)
    gateway.add_service(names)
    whole = packet(UDP, (A, 5000, US, NAMES), bytes(1200))
    pieces = fragments(whole, 400)
    sent = [effect for piece in pieces for effect in feed(gateway, "tap0", piece)]
    assert [len(heard) for heard in names.heard] == [len(whole)]
    assert len(sent) == (fate == "answered"), "one answer for all fragments"
    assert fates(gateway, "tap0") == {fate: len(pieces)}


def test_a_service_that_refuses_gives_the_reason(gateway: Gateway) -> None:
    gateway.add_service(Listener(NAMES, Refused(Drop.LOCAL_SILENT)))
    assert feed(gateway, "tap0", packet(UDP, (A, 5000, US, NAMES))) == []
    assert gateway.counters.drops[Drop.LOCAL_SILENT] == 1


def test_an_early_service_hears_broadcasts_that_are_martians_to_everybody_else(gateway: Gateway) -> None:
    offer = packet(UDP, (ROUTER, 67, ipv4.BROADCAST, 68))
    feed(gateway, "tap1", offer)
    assert gateway.counters.drops[Drop.IP_BROADCAST] == 1
    client = Listener(68)
    gateway.add_service(client, early=True)
    assert feed(gateway, "tap1", offer) == []
    assert client.heard == [offer]
    assert fates(gateway, "tap1") == {"dropped": 1, "taken": 1}


def test_the_timer_of_a_service_is_one_of_the_gateways_timers(gateway: Gateway) -> None:
    gateway.add_service(Listener(NAMES, due_ns=SECOND_NS))
    assert gateway.next_deadline() == SECOND_NS
    assert gateway.tick(SECOND_NS) == [Send("tap1", b"question", None)]
    assert gateway.next_deadline() is None


def test_echo_is_answered_before_any_service_that_was_added(gateway: Gateway) -> None:
    class Everything(Listener):
        def wants(self, arrival: Arrival) -> bool:
            return True

    late = Everything(0)
    gateway.add_service(late)
    assert feed(gateway, "tap0", packet(ICMP, (A, 7, US, 8))) != []
    assert (late.heard, fates(gateway, "tap0")) == ([], {"answered": 1})
