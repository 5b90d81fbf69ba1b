"""Threads that serve ports beside the loop: order, deadlines, ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from bridge.loop.loop import BURST_FRAMES, Loop
from bridge.loop.workers import STOP_S, Workers
from bridge.ports.base import Port, PortGone, ReceivedFrame
from bridge.ports.bursts import PlainBursts
from bridge.ports.memory import MemoryPort
from bridge.walk.effects import Effect, Send
from flow.plain import PlainTable
from wire.drop import Drop
from wire.gso import GsoHeader

WAIT_S = 20.0


@dataclass
class Walk:
    """A frame that comes in on one port goes out on the other; a frame `later` leaves with the next tick."""

    due_ns: int | None = None
    seen: list[bytes] = field(default_factory=list)
    walkers: set[str] = field(default_factory=set)
    walked: threading.Event = field(default_factory=threading.Event)

    def receive(self, port: str, frame: bytes, now: int, gso: GsoHeader | None = None) -> list[Effect]:
        self.walkers.add(threading.current_thread().name)
        self.seen.append(frame)
        if frame == b"later":
            self.due_ns = now + 1
        if frame == b"last":
            self.walked.set()
        return [Send("right" if port == "left" else "left", frame, gso)]

    def tick(self, now: int) -> list[Effect]:
        self.due_ns = None
        return [Send("left", b"tick", None)]

    def next_deadline(self) -> int | None:
        return self.due_ns

    def refused(self, port: str, reason: Drop) -> None:
        raise AssertionError(f"{port}: {reason}")

    def failed(self, port: str | None) -> None:
        raise AssertionError(port)


class Fragile(MemoryPort):
    """Its device is gone as soon as a frame says so."""

    def read_burst(self, limit: int) -> list[ReceivedFrame]:
        burst = super().read_burst(limit)
        if (b"gone", None) in burst:
            raise PortGone("it was removed")
        return burst


class Numbers:
    def number(self, port: str) -> int:
        return ("left", "right").index(port)

    def name(self, number: int) -> str:
        return ("left", "right")[number]


@dataclass
class Bench:
    walk: Walk
    loop: Loop
    left: MemoryPort
    right: MemoryPort
    workers: Workers
    gone: list[str]

    def until(self, has_happened: Callable[[], bool]) -> None:
        """Turn the loop until something has happened; each turn is woken, or comes to an end by its limit."""
        for _ in range(round(WAIT_S / 0.1)):
            if has_happened():
                return
            self.loop.turn(0.1)
        raise AssertionError("it has not happened")


@pytest.fixture
def bench() -> Iterator[Bench]:
    walk, gone, table = Walk(), [], PlainTable(16)

    def lost(port: Port, _: PortGone) -> None:
        gone.append(port.name)

    loop = Loop(walk, on_gone=lost)
    ports = Fragile("left", "tap"), Fragile("right", "tap")
    loop.repeat_with(PlainBursts(table), Numbers())

    def bursts() -> PlainBursts:
        made = PlainBursts(table)
        for number, port in enumerate(ports):
            made.attach(number, port)
        return made

    for number, port in enumerate(ports):
        table.set_port(number, bytes([2, 0, 0, 0, 0, number]), 1500, None)
        loop.attach_served(port)
    workers = Workers(loop, ports, 2, bursts)
    workers.start()
    yield Bench(walk, loop, *ports, workers, gone)
    workers.close()
    loop.close()
    for port in ports:
        port.close()


def test_what_a_port_hands_over_is_walked_in_order_by_one_thread(bench: Bench) -> None:
    frames = [number.to_bytes(2, "big") for number in range(10 * BURST_FRAMES)]
    bench.left.deliver(*frames, b"last")
    assert bench.walk.walked.wait(WAIT_S)
    bench.workers.close()
    assert bench.walk.seen == [*frames, b"last"]
    assert [frame for frame, _ in bench.right.sent] == [*frames, b"last"]
    assert bench.walk.walkers == {"ports 1"}


def test_a_deadline_that_a_thread_s_frame_brings_closer_is_met_by_the_sleeping_loop(bench: Bench) -> None:
    bench.left.deliver(b"later")
    bench.until(lambda: bool(bench.left.sent))
    assert bench.left.sent == [(b"tick", None)]


def test_all_threads_end_when_they_are_told_busy_or_idle(bench: Bench) -> None:
    bench.left.deliver(*[b"x"] * 50 * BURST_FRAMES)
    bench.workers.close()
    bench.workers.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ports ")]
    assert STOP_S <= 1


def test_a_device_that_goes_under_a_thread_is_told(bench: Bench) -> None:
    bench.right.deliver(b"gone")
    bench.until(lambda: bench.gone == ["right"])
