"""The loop: bursts, fairness, deadlines, refusals, watchers, signals, and bugs that must not end it."""

from __future__ import annotations

import logging
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from bridge.loop.bugs import BUG_INTERVAL_NS
from bridge.loop.loop import BURST_FRAMES, CLAIM_INTERVAL_NS, PAUSE_AFTER_BUG_NS, Loop
from bridge.loop.signals import Signals
from bridge.ports.base import Port, PortGone, ReceivedFrame
from bridge.ports.bursts import PlainBursts, Queued
from bridge.ports.memory import MemoryPort
from bridge.walk.effects import Effect, Event, Send
from flow.plain import PlainTable
from flow.table import NO_SLOT, REPEAT
from trials.fuzz.targets.flow import packet
from wire.drop import Drop
from wire.gso import GsoHeader
from wire.ipv4 import UDP
from wire.units import SECOND_NS


@dataclass
class Cable:
    """The simplest walk: what comes in on one port goes out on the other; `bug` is a frame that it fails on."""

    due_ns: int | None = None
    is_tick_broken: bool = False
    order: list[str] = field(default_factory=list)
    ticks: list[int] = field(default_factory=list)
    refusals: list[tuple[str, Drop]] = field(default_factory=list)
    failures: list[str | None] = field(default_factory=list)

    def receive(self, port: str, frame: bytes, now: int, gso: GsoHeader | None = None) -> list[Effect]:
        self.order.append(port)
        assert frame != b"bug"
        return [Send("right" if port == "left" else "left", frame, gso)]

    def tick(self, now: int) -> list[Effect]:
        self.ticks.append(now)
        assert not self.is_tick_broken
        self.due_ns = None
        return [Send("left", b"tick", None)]

    def next_deadline(self) -> int | None:
        return self.due_ns

    def refused(self, port: str, reason: Drop) -> None:
        self.refusals.append((port, reason))

    def failed(self, port: str | None) -> None:
        self.failures.append(port)


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000 * SECOND_NS

    def __call__(self) -> int:
        return self.now


@dataclass
class Bench:
    walk: Cable
    clock: Clock
    loop: Loop
    left: MemoryPort
    right: MemoryPort
    gone: list[str]

    def turn(self) -> None:
        self.loop.turn(0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    walk, clock, gone = Cable(), Clock(), []

    def lost(port: Port, _: PortGone) -> None:
        gone.append(port.name)

    loop = Loop(walk, on_gone=lost, clock=clock)
    left, right = MemoryPort("left", "tap"), MemoryPort("right", "tap")
    for port in (left, right):
        loop.attach(port)
    yield Bench(walk, clock, loop, left, right, gone)
    loop.close()
    left.close()
    right.close()


def test_what_comes_in_goes_out_in_order_with_its_virtio_claims(bench: Bench) -> None:
    claims = GsoHeader(True, 1, 40, 1448, 20, 16)
    bench.left.deliver(b"1", b"2", gso=claims)
    bench.turn()
    assert bench.right.sent == [(b"1", claims), (b"2", claims)]


def test_a_flooded_port_does_not_starve_the_other(bench: Bench) -> None:
    bench.left.deliver(*[b"flood"] * 10 * BURST_FRAMES)
    bench.right.deliver(b"alone")
    bench.turn()
    assert bench.walk.order.count("left") == BURST_FRAMES
    assert bench.left.sent == [(b"alone", None)]


def test_a_port_that_refuses_is_told_to_the_walk(bench: Bench) -> None:
    bench.right.capacity = 0
    bench.left.deliver(b"1")
    bench.turn()
    assert bench.walk.refusals == [("right", Drop.PORT_FULL)]


def test_a_port_that_is_not_there_is_told_to_the_walk(bench: Bench) -> None:
    bench.loop.carry_out([Send("vpn:hk", b"1", None)])
    assert bench.walk.refusals == [("vpn:hk", Drop.PORT_ABSENT)]


def test_a_deadline_fires_at_its_time_and_not_before(bench: Bench) -> None:
    bench.walk.due_ns = bench.clock.now + SECOND_NS
    bench.turn()
    assert bench.walk.ticks == []
    bench.clock.now += SECOND_NS
    bench.loop.turn()  # without a limit: a deadline that is due must not wait for frames
    assert bench.left.sent == [(b"tick", None)]


def test_a_deadline_in_the_far_future_is_waited_for_in_parts(bench: Bench) -> None:
    bench.walk.due_ns = bench.clock.now + 2**31 * SECOND_NS
    bench.left.deliver(b"1")
    bench.loop.turn()
    assert bench.right.sent == [(b"1", None)]


def test_a_frame_that_our_own_code_fails_on_is_logged_once_a_minute_and_counted_always(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.left.deliver(b"bug", b"bug", b"after")
    bench.turn()
    assert bench.right.sent == [(b"after", None)]
    assert bench.walk.failures == ["left"] * 2
    assert [b"bug".hex() in record.getMessage() for record in caplog.records] == [True]
    assert caplog.records[0].exc_info is not None
    bench.clock.now += BUG_INTERVAL_NS
    bench.left.deliver(b"bug")
    bench.turn()
    assert "1 more since" in caplog.records[1].getMessage()


class Numbers:
    NAMES = ("left", "right", "peer")

    def number(self, port: str) -> int:
        return self.NAMES.index(port)

    def name(self, number: int) -> str:
        return self.NAMES[number]


def test_a_writer_that_fails_on_repeated_frames_costs_those_frames_alone(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(frame: bytes | bytearray, _: GsoHeader | None) -> Drop | None:
        raise ArithmeticError(frame.hex())

    table = PlainTable(4)
    bursts = PlainBursts(table)
    for number in range(3):
        table.set_port(number, b"", 1500, None)
    bursts.attach(0, bench.left)
    ends = (1, 5000, 2, 53)
    table.learn(0, 2, UDP, ends, ends, 60, NO_SLOT, REPEAT, bench.clock())
    bench.loop.repeat_with(bursts, Numbers())
    bench.loop.attach_writer("peer", fails)
    bench.left.deliver(packet(UDP, ends), packet(UDP, ends), b"strange")
    bench.turn()
    assert bench.walk.refusals == [("peer", Drop.WALK_FAULT)] * 2
    assert bench.walk.order == ["left"], "what is behind them is walked"
    assert "ArithmeticError" in caplog.text


def test_a_port_that_fails_in_a_way_of_its_own_does_not_end_the_loop(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A descriptor that is no device any more: what reading it raises is nothing that the loop knows."""
    bench.left.deliver(b"x")
    bench.loop.repeat_with(PlainBursts(PlainTable(4)), Numbers())  # which no port was attached to
    bench.right.deliver(b"y")
    bench.turn()
    assert "KeyError" in caplog.text


def test_a_timer_that_our_own_code_fails_on_is_tried_again_later_and_frames_pass_meanwhile(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.walk.due_ns, bench.walk.is_tick_broken = bench.clock.now, True
    bench.left.deliver(b"1")
    for _ in range(3):
        bench.turn()
    assert len(bench.walk.ticks) == 1
    assert bench.right.sent == [(b"1", None)]
    bench.clock.now += PAUSE_AFTER_BUG_NS
    bench.turn()
    assert len(bench.walk.ticks) == 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_watcher_sees_both_directions_of_its_port_only(bench: Bench) -> None:
    seen: list[tuple[str, str, bytes]] = []

    def see(port: str, direction: str, frame: bytes | bytearray, _: GsoHeader | None) -> None:
        seen.append((port, direction, bytes(frame)))

    bench.loop.watch("left", see)
    bench.left.deliver(b"1")
    bench.right.deliver(b"2")
    bench.turn()
    assert sorted(seen) == [("left", "in", b"1"), ("left", "out", b"2")]
    bench.loop.unwatch("left", see)
    bench.left.deliver(b"3")
    bench.turn()
    assert len(seen) == 2


def test_a_device_that_vanishes_is_told_and_waited_for_no_more(bench: Bench) -> None:
    class Vanishing(MemoryPort):
        def read_burst(self, limit: int) -> list[tuple[bytes, GsoHeader | None]]:
            raise PortGone("gone")

    port = Vanishing("tap9", "tap")
    bench.loop.attach(port)
    port.deliver(b"1")
    bench.turn()
    bench.turn()
    assert bench.gone == ["tap9"]
    port.close()


class Failing(PlainBursts):
    """Fails while it waits, as bursts do that are served there."""

    error: Exception = MemoryError("no room for a burst")

    def wait(
        self, epoll: select.epoll, timeout_s: float | None, limit: int
    ) -> tuple[tuple[int, list[ReceivedFrame], list[Queued]] | None, list[tuple[int, int]]]:
        raise self.error


class OneNumber:
    def number(self, port: str) -> int:
        return ("left", "right").index(port)

    def name(self, number: int) -> str:
        return ("left", "right")[number]


def test_bursts_that_fail_while_they_wait_end_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bursts = Failing(PlainTable(4))
    for number, port in enumerate((bench.left, bench.right)):
        bursts.attach(number, port)
    bench.loop.repeat_with(bursts, OneNumber())
    bench.left.deliver(b"1")
    bench.turn()
    assert [frame for frame, _ in bench.right.sent] == [b"1"]
    assert "a bug in the gateway in a burst while it waited" in caplog.text
    assert bench.gone == []


def test_a_device_that_vanishes_while_bursts_wait_is_told(bench: Bench) -> None:
    class Vanishing(MemoryPort):
        def read_burst(self, limit: int) -> list[tuple[bytes, GsoHeader | None]]:
            raise PortGone("gone")

    bursts = Failing(PlainTable(4))
    bursts.error = PortGone("port 0 is gone")
    port = Vanishing("left", "tap")
    bursts.attach(0, port)
    bench.loop.repeat_with(bursts, OneNumber())
    bench.loop.attach(port)
    port.deliver(b"1")
    bench.turn()
    assert bench.gone == ["left"]
    port.close()


def test_a_callback_that_fails_is_logged_and_frames_pass(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise AssertionError("a bug")

    bench.loop.call_later(0, fail)
    bench.left.deliver(b"1")
    bench.turn()
    bench.turn()
    assert bench.right.sent == [(b"1", None)]
    assert "beside the frames" in caplog.text


def test_timers_fire_in_order_of_their_time_and_can_be_cancelled(bench: Bench) -> None:
    fired: list[str] = []
    bench.loop.call_later(2, lambda: fired.append("second"))
    bench.loop.call_later(1, lambda: fired.append("first"))
    bench.loop.call_later(1, lambda: fired.append("never")).cancel()
    bench.turn()
    assert fired == []
    bench.clock.now += 2 * SECOND_NS
    bench.turn()
    assert fired == ["first", "second"]


def test_a_signal_is_handled_in_the_loop_and_the_old_handlers_come_back(bench: Bench) -> None:
    before = signal.getsignal(signal.SIGHUP)
    signals = Signals([signal.SIGHUP])
    signals.deliver(bench.loop, {signal.SIGHUP: bench.loop.stop})
    os.kill(os.getpid(), signal.SIGHUP)
    bench.loop.run()  # ends because the handler stops it
    signals.close()
    assert signal.getsignal(signal.SIGHUP) == before


def test_a_signal_that_comes_before_anybody_handles_it_waits(bench: Bench) -> None:
    signals = Signals([signal.SIGHUP])
    os.kill(os.getpid(), signal.SIGHUP)
    signals.deliver(bench.loop, {signal.SIGHUP: bench.loop.stop})
    bench.loop.run()  # ends because the handler stops it
    signals.close()


def test_signals_of_a_start_that_failed_are_closed_without_a_loop() -> None:
    before = signal.getsignal(signal.SIGHUP)
    Signals([signal.SIGHUP]).close()
    assert signal.getsignal(signal.SIGHUP) == before


def test_two_stations_that_claim_one_address_are_told_now_and_then(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    facts = {"ip": "192.168.200.2", "mac": "02:bb:00:00:00:01", "state": "conflict", "change": "conflict"}
    quiet = Event("tap0", "arp", dict(facts))
    claim = Event("tap0", "arp", {**facts, "claimant": "02:bb:00:00:00:01"})
    with caplog.at_level(logging.WARNING):
        bench.loop.carry_out([quiet, claim, claim])
        bench.clock.now += CLAIM_INTERVAL_NS
        bench.loop.carry_out([claim])
    assert [record.getMessage() for record in caplog.records] == [
        "tap0: 02:bb:00:00:00:01 claims 192.168.200.2, our own address"
    ] * 2
