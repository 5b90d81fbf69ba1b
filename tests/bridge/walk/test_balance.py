"""Every frame that came in has one fate: what the law says, that it notices, and where a fate is not plain to see."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bridge.control.answers import stats
from bridge.control.answers.question import Subject
from bridge.loop.loop import Loop
from bridge.ports.bursts import PlainBursts
from bridge.ports.memory import MemoryPort
from bridge.walk import balance
from bridge.walk.effects import Effect, Send
from bridge.walk.gateway import Gateway
from flow.plain import PlainTable
from trials.fuzz.targets.flow import packet
from trials.fuzz.targets.frames import MACS, WORLDS, gateway_of
from trials.soak.world import arp, fragments
from wire.drop import Drop
from wire.gso import GsoHeader
from wire.ipv4 import ICMP, TCP, UDP
from wire.tcp import SYN
from wire.units import SECOND_NS, address_int

A, B, DEAD = (address_int(f"192.168.200.{last}") for last in (10, 11, 99))
US, TAP1, HOST, REMOTE = map(address_int, ("192.168.200.2", "192.168.1.2", "192.168.192.211", "203.0.113.5"))
MAC_A, MAC_DEAD = bytes.fromhex("02aa0000000a"), bytes.fromhex("02aa00000063")
OUR_MAC = MACS["tap0"][:6]


@pytest.fixture
def gateway() -> Gateway:
    return gateway_of(WORLDS[0].configuration, 1)


def feed(gateway: Gateway, port: str, data: bytes, now: int = 0) -> list[Effect]:
    """An IP packet in."""
    frame = MACS[port] + b"\x08\x00" + data if port in MACS else data
    effects = gateway.receive(port, frame, now)
    balance.check(gateway)
    return effects


def fates(gateway: Gateway, port: str) -> dict[str, int]:
    """Those of a port that are not zero."""
    return {fate: number for fate, number in balance.accounts(gateway)[port].fates.items() if number}


def test_each_fate_is_counted_where_the_frame_came_in(gateway: Gateway) -> None:
    feed(gateway, "tap0", packet(UDP, (A, 5000, REMOTE, 53)))
    assert fates(gateway, "tap0") == {"sent": 1}
    feed(gateway, "tap0", packet(ICMP, (A, 7, US, 8)))
    assert fates(gateway, "tap0") == {"sent": 1, "answered": 1}
    feed(gateway, "tap0", packet(TCP, (A, 5000, US, 22), tcp_flags=SYN))
    assert fates(gateway, "tap0") == {"sent": 1, "answered": 2}
    gateway.receive("tap0", arp(1, MAC_A, A, bytes(6), US), 0)
    assert fates(gateway, "tap0") == {"sent": 1, "answered": 3}
    gateway.receive("tap0", OUR_MAC + arp(2, MACS["tap1"][6:], B, OUR_MAC, US)[6:], 0)
    assert fates(gateway, "tap0") == {"sent": 1, "answered": 3, "taken": 1}
    feed(gateway, "tap0", packet(UDP, (A, 5000, US, 53)))
    assert fates(gateway, "tap0") == {"sent": 1, "answered": 3, "taken": 1, "dropped": 1}, "an error beside a drop"
    feed(gateway, "tun0", packet(UDP, (HOST, 5000, DEAD, 53)))
    assert fates(gateway, "tun0") == {"held": 1}
    gateway.tick(4 * SECOND_NS)
    for second in range(5, 9):
        gateway.tick(second * SECOND_NS)
    assert fates(gateway, "tun0") == {"dropped": 1}
    balance.check(gateway)


def test_a_datagram_that_is_cut_for_its_egress_is_one_frame_that_waits_and_goes_whole(gateway: Gateway) -> None:
    """More pieces than an address has room for frames: none of them may push out another."""
    feed(gateway, "tun0", packet(UDP, (HOST, 5000, DEAD, 53), bytes(20_000)))
    assert fates(gateway, "tun0") == {"held": 1}
    effects = gateway.receive("tap0", OUR_MAC + arp(2, MAC_DEAD, DEAD, OUR_MAC, US)[6:], 1)
    assert sum(isinstance(effect, Send) for effect in effects) == 14
    assert fates(gateway, "tun0") == {"sent": 1}
    assert gateway.counters.ports["tap0"].tx_packets == 15, "and the question"
    balance.check(gateway)


@pytest.mark.parametrize("damage", [False, True])
def test_all_fragments_of_an_echo_request_share_its_fate(gateway: Gateway, damage: bool) -> None:
    whole = bytearray(packet(ICMP, (A, 7, US, 8), bytes(4000)))
    if damage:
        whole[-1] ^= 1
    pieces = fragments(bytes(whole), 1480)
    for piece in pieces[:-1]:
        feed(gateway, "tap0", piece)
    assert fates(gateway, "tap0") == {"held": 2}
    feed(gateway, "tap0", pieces[-1])
    assert fates(gateway, "tap0") == {"dropped" if damage else "answered": 3}
    assert gateway.counters.drops[Drop.ICMP_CHECKSUM] == (3 if damage else 0)


def test_what_gives_way_in_the_reassembly_is_dropped_at_once(gateway: Gateway) -> None:
    """A source may have 32 datagrams there."""
    for number in range(40):
        feed(gateway, "tap0", fragments(packet(ICMP, (A, 7, US, 8), bytes(4000), identification=number), 1480)[0])
    assert fates(gateway, "tap0") == {"held": 32, "dropped": 8}


def test_an_answer_without_a_next_hop_is_lost_and_its_cause_was_answered_all_the_same(gateway: Gateway) -> None:
    for number in range(10):  # the queue of an address has eight places
        feed(gateway, "tap0", packet(ICMP, (B, number, US, 8)))
    assert fates(gateway, "tap0") == {"answered": 10}
    assert gateway.counters.ports["tap0"].lost == 2


def test_what_a_device_refuses_was_sent_and_is_refused(gateway: Gateway) -> None:
    class Full(MemoryPort):
        def write(self, frame: bytes | bytearray, gso: GsoHeader | None) -> Drop | None:
            return Drop.PORT_FULL

    loop = Loop(gateway)
    loop.attach_served(Full("tap1", "tap"))
    loop.walk("tap0", [(MACS["tap0"] + b"\x08\x00" + packet(UDP, (A, 5000, REMOTE, 53)), None)])
    loop.close()
    account = balance.accounts(gateway)
    assert (account["tap0"].sent, account["tap1"].refused) == (1, 1)
    balance.check(gateway)


def test_after_a_fault_of_ours_every_frame_that_it_took_is_dropped_and_counted(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer that releases three waiting frames fails on the second."""
    loop = Loop(gateway, clock=lambda: SECOND_NS)
    for number in range(3):
        feed(gateway, "tun0", packet(UDP, (HOST, 5000 + number, DEAD, 53)))
    left = iter([True, False])
    send = gateway.out.send

    def fragile(*arguments: Any) -> None:
        assert next(left)
        send(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(gateway.out, "send", fragile)
        loop.walk("tap0", [(OUR_MAC + arp(2, MAC_DEAD, DEAD, OUR_MAC, US)[6:], None)])
    loop.close()
    caplog.clear()
    assert fates(gateway, "tun0") == {"sent": 1, "dropped": 2}
    assert fates(gateway, "tap0") == {"dropped": 1}
    assert gateway.counters.drops[Drop.WALK_FAULT] == 3
    balance.check(gateway)


def test_a_fault_behind_the_walk_is_counted_once_and_takes_no_fate_away(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryPort):
        def write(self, frame: bytes | bytearray, gso: GsoHeader | None) -> Drop | None:
            raise ArithmeticError("a bug")

    loop = Loop(gateway)
    loop.attach_served(Broken("tap1", "tap"))
    loop.walk("tap0", [(MACS["tap0"] + b"\x08\x00" + packet(UDP, (A, 5000, REMOTE, 53)), None)])
    loop.close()
    caplog.clear()
    assert fates(gateway, "tap0") == {"sent": 1}
    assert gateway.counters.ports["tap0"].lost == 1
    balance.check(gateway)


def test_frames_that_are_repeated_are_in_the_account(gateway: Gateway) -> None:
    table = PlainTable(16)
    gateway = Gateway(gateway.settings, gateway.routes, random.Random(1), table=table)
    ports = {name: MemoryPort(name, "tap") for name in ("tap0", "tap1")}
    bursts = PlainBursts(table)
    for name, port in ports.items():
        bursts.attach(gateway.fast.number(name), port)
    gateway.fast.bursts.append(bursts)
    frame = MACS["tap0"] + b"\x08\x00" + packet(UDP, (A, 5000, REMOTE, 53), flags=0x4000)
    gateway.receive("tap0", frame, 0)
    ports["tap0"].deliver(*[frame] * 5)
    walked, queued = bursts.take(gateway.fast.number("tap0"), 64, 0)
    assert (walked, queued) == ([], [])
    balance.check(gateway)
    account = balance.accounts(gateway)
    assert (account["tap0"].sent, account["tap0"].repeated_in, account["tap1"].repeated_out) == (6, 5, 5)
    told = stats.show(Subject(gateway), {}, 0)
    assert balance.difference(balance.accounts_of(told)) == ""
    assert told["fates"]["tap0"] == {
        "sent": 6,
        "answered": 0,
        "taken": 0,
        "held": 0,
        "dropped": 0,
        "refused": 0,
        "lost": 0,
    }


@pytest.mark.parametrize(
    ("what", "by", "says"),
    [
        ("rx_packets", 1, "tap0: 1 frames in, +1 without a fate"),
        ("sent", 1, "tap0: 0 frames in, -1 without a fate"),
        ("dropped", 1, "tap0: 0 drops by reason, 1 by kind"),
        ("repeated_in", 2, "2 frames were repeated, and 0 frames left for it"),
    ],
)
def test_the_law_notices(gateway: Gateway, what: str, by: int, says: str) -> None:
    port = gateway.counters.ports["tap0"]
    setattr(port, what, getattr(port, what) + by)
    with pytest.raises(balance.Unbalanced) as raised:
        balance.check(gateway)
    assert says in str(raised.value)
