"""The loop that does input and output: ports, timers and other descriptors, by epoll.

In a turn each ready port gives one burst, so that no port starves another; the clock is read once per burst. A burst
that the flow table handles completely never wakes Python (`repeat_with`). Otherwise each frame's effects are carried
out before the next frame is walked. While somebody watches frames pass, all of them are walked. A frame on which our
own code fails is logged (`bridge.loop.bugs`), counted and left behind: it never ends the loop.

Threads (`bridge.loop.workers`) may serve ports in place of the loop. They hold `lock` while they walk frames, as the
loop does while it does anything but wait.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Protocol

from bridge.loop.bugs import BugLog
from bridge.ports.base import Port, PortGone, ReceivedFrame
from bridge.ports.bursts import Bursts, Queued
from bridge.walk.effects import Effect, Event, Send
from wire.drop import Drop
from wire.gso import GsoHeader
from wire.units import SECOND_NS, earliest

log = logging.getLogger(__name__)

BURST_FRAMES = 64
CLAIM_INTERVAL_NS = 10 * SECOND_NS
"""A conflict of addresses is logged at most this often."""
PAUSE_AFTER_BUG_NS = SECOND_NS
"""A timer of the walk that fails is tried again after this time, not at once."""
_LONGEST_WAIT_S = 3600.0  # epoll takes no more than 2^31 milliseconds, a link may live longer

Watcher = Callable[[str, str, bytes | bytearray, GsoHeader | None], None]
"""Sees frames pass: (port, `in` or `out`, frame, gso)."""


class Walk(Protocol):
    """The walk as the loop needs it: `bridge.walk.gateway.Gateway`."""

    def receive(self, port: str, frame: bytes, now: int, gso: GsoHeader | None = None) -> list[Effect]:
        """Walk one frame."""

    def tick(self, now: int) -> list[Effect]:
        """Fire what is due."""

    def next_deadline(self) -> int | None:
        """When `tick` is wanted, in ns."""

    def refused(self, port: str, reason: Drop) -> None:
        """A frame could not be sent."""

    def failed(self, port: str | None) -> None:
        """A bug: `receive` or what followed it failed on a frame of `port`; None: `tick` did."""


class Numbers(Protocol):
    """The numbers of ports in the flow table, as the loop needs them: `bridge.walk.fast_path.FastPath`."""

    def number(self, port: str) -> int:
        """The number of a port's name."""

    def name(self, number: int) -> str:
        """The port's name of a number."""


class _Unnumbered:
    """Stands in as long as there is no flow table, and is never asked."""

    def number(self, port: str) -> int:
        raise LookupError(port)

    def name(self, number: int) -> str:
        raise LookupError(number)


class Timer:
    """A call that is due once, at `due_ns`."""

    __slots__ = ("callback", "due_ns")

    def __init__(self, due_ns: int, callback: Callable[[], None]) -> None:
        self.due_ns = due_ns
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Not to be called any more; also fine after it was."""
        self.callback = None


class Loop:
    """`on_gone` is called with a port whose device was removed under it, `on_lease` with each change of tap1's lease.
    `clock`: monotonic ns."""

    def __init__(
        self,
        walk: Walk,
        *,
        on_gone: Callable[[Port, PortGone], None] | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.clock = clock
        self.lock = threading.Lock()
        self._walk = walk
        self.on_gone = on_gone
        self.on_lease: Callable[[str], None] = lambda _change: None
        self._writers: dict[str, Callable[[bytes | bytearray, GsoHeader | None], Drop | None]] = {}
        self._bursts: Bursts | None = None
        self._numbers: Numbers = _Unnumbered()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._ports: dict[int, Port] = {}
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[int, int, Timer]] = []
        self._order = itertools.count()
        self._watchers: dict[str, tuple[Watcher, ...]] = {}
        self._bugs = BugLog(clock)
        self._claims_quiet_until_ns = 0
        self._resume_ticks_ns = 0
        self._after: list[Callable[[], None]] = []
        self._running = True
        self.add(self._wake, self._woken)

    def attach(self, port: Port) -> None:
        """Serve a port from the next turn on. Its opener closes it."""
        self._ports[port.fileno()] = port
        self._writers[port.name] = port.write
        self._epoll.register(port.fileno(), select.EPOLLIN)

    def repeat_with(self, bursts: Bursts, numbers: Numbers) -> None:
        """Let the flow table repeat what it can from now on. `numbers`: the numbers of ports in the table."""
        self._bursts, self._numbers = bursts, numbers

    def attach_served(self, port: Port) -> None:
        """Write frames for a port that a thread reads (`serve`)."""
        self._writers[port.name] = port.write

    def attach_writer(self, name: str, write: Callable[[bytes | bytearray, GsoHeader | None], Drop | None]) -> None:
        """Give frames for the port `name` to `write`, for ports that share one descriptor; `detach_writer` ends it."""
        self._writers[name] = write

    def detach_writer(self, name: str) -> None:
        """Refuse frames for the port `name` from now on (`Drop.PORT_ABSENT`)."""
        self._writers.pop(name, None)

    def after_bursts(self, callback: Callable[[], None]) -> None:
        """Call after every burst of frames and at the end of every turn, so that collected packets can leave."""
        self._after.append(callback)

    # Running

    def run(self) -> None:
        """Turn until `stop`."""
        while self._running:
            self.turn()

    def stop(self) -> None:
        """Let `run` return after the present turn."""
        self._running = False

    def turn(self, longest_s: float | None = None) -> None:
        """Wait for an event, at most until the next deadline or for `longest_s`, and handle everything that is ready
        once."""
        with self.lock:
            deadline = self._walk_deadline()  # once a turn: one that these frames bring closer is the next turn's
            timeout_s = self._timeout(deadline, longest_s)
        burst, ready = self._wait(timeout_s)
        with self.lock:
            if burst is not None:
                number, walked, queued = burst
                self._finish(self._numbers.name(number), walked, queued)
            for fd, events in ready:
                port = self._ports.get(fd)
                if port is not None:
                    self._burst(port)
                    continue
                callback = self._callbacks.get(fd)  # None where an earlier callback of this turn removed it
                if callback is not None:
                    self._call(partial(callback, events))
            self._fire(deadline)
            self._call_after_bursts()

    def _wait(
        self, timeout_s: float | None
    ) -> tuple[tuple[int, list[ReceivedFrame], list[Queued]] | None, list[tuple[int, int]]]:
        """Wait as `Bursts.wait` does. If a burst fails meanwhile, its port is read once more with the other ports, and
        that reading tells a device that is gone from a bug of ours."""
        if self._bursts is not None and not self._watchers:
            try:
                return self._bursts.wait(self._epoll, timeout_s, BURST_FRAMES)
            except PortGone:
                pass  # its port is ready still
            except Exception as error:  # noqa: BLE001 - the next one may be better
                with self.lock:
                    self._bugs.add(error, "in a burst while it waited", b"")
        return None, self._epoll.poll(timeout_s)

    def close(self) -> None:
        """Give the descriptors back."""
        self._epoll.close()
        os.close(self._wake)

    # Descriptors and timers of others

    def add(self, fd: int, callback: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        """Call `callback(events)` whenever `fd` is ready. Its work has to be bounded, because frames wait meanwhile."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, events)

    def modify(self, fd: int, events: int) -> None:
        """Wait for other events of an added descriptor."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Forget an added descriptor, before it is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call once, `seconds` from now."""
        return self.call_at(self.clock() + round(seconds * SECOND_NS), callback)

    def call_at(self, due_ns: int, callback: Callable[[], None]) -> Timer:
        """Call once, when the clock shows `due_ns`."""
        timer = Timer(due_ns, callback)
        heapq.heappush(self._timers, (timer.due_ns, next(self._order), timer))
        return timer

    # Watching

    @property
    def watching(self) -> int:
        """The number of watchers, on all ports."""
        return sum(map(len, self._watchers.values()))

    def watch(self, port: str, watcher: Watcher) -> None:
        """Show `watcher` every frame of a port; nothing is spent on ports that nobody watches."""
        self._watchers[port] = (*self._watchers.get(port, ()), watcher)

    def unwatch(self, port: str, watcher: Watcher) -> None:
        """End `watch`."""
        left = tuple(other for other in self._watchers.get(port, ()) if other != watcher)
        if left:
            self._watchers[port] = left
        else:
            self._watchers.pop(port, None)

    # The work

    def carry_out(self, effects: Iterable[Effect]) -> None:
        """Write frames to their ports. A refusal of a port is told to the walk, which counts it."""
        for effect in effects:
            if not isinstance(effect, Send):
                self._tell(effect)
                continue
            port, frame, gso = effect
            write = self._writers.get(port)
            if write is None:
                self._walk.refused(port, Drop.PORT_ABSENT)
                continue
            if self._watchers:
                for watcher in self._watchers.get(port, ()):
                    watcher(port, "out", frame, gso)
            refusal = write(frame, gso)
            if refusal is not None:
                self._walk.refused(port, refusal)

    def _tell(self, event: Event) -> None:
        """Tell changes of the lease, and log that two stations claim one address, at most once in
        `CLAIM_INTERVAL_NS`; `stats` counts all claims."""
        if event.kind == "lease":
            says = f" ({event.facts['says']})" if event.facts.get("says") else ""
            log.info("%s: lease %s %s%s", event.port, event.facts["change"], event.facts["address"], says)
            self.on_lease(str(event.facts["change"]))
        if event.kind == "ipv6_router":
            mac = event.facts["mac"]
            log.warning("%s: %s advertises IPv6: hosts there may reach the world past this gateway", event.port, mac)
            return
        claimant, now = event.facts.get("claimant"), self.clock()
        if claimant is None or now < self._claims_quiet_until_ns:
            return
        self._claims_quiet_until_ns = now + CLAIM_INTERVAL_NS
        mac = event.facts["mac"]
        owner = "our own address" if claimant == mac else f"which is at {mac}"
        log.warning("%s: %s claims %s, %s", event.port, claimant, event.facts["ip"], owner)

    def _burst(self, port: Port) -> None:
        try:
            if self._bursts is None or self._watchers:
                self._walk_all(port.name, port.read_burst(BURST_FRAMES))
            else:
                number = self._numbers.number(port.name)
                self._finish(port.name, *self._bursts.take(number, BURST_FRAMES, self.clock()))
        except PortGone as gone:
            self._port_gone(port, gone)
        except Exception as error:  # noqa: BLE001 - the port's next burst may be better
            self._bugs.add(error, f"in a burst of {port.name}", b"")

    def _finish(self, name: str, walked: list[ReceivedFrame], queued: list[Queued]) -> None:
        """Handle what the flow table left of a burst: frames for our own writers, then frames for the walk."""
        for number, frame, gso in queued:
            self.put(number, frame, gso)
        self._walk_all(name, walked)

    def _walk_all(self, name: str, burst: list[ReceivedFrame]) -> None:
        if burst:
            self.walk(name, burst)
        self._call_after_bursts()

    def serve(self, port: Port, bursts: Bursts) -> bool:
        """Serve one burst of a port in the calling thread, which has `bursts` of its own; False where the device is
        gone."""
        try:
            if self._watchers:
                with self.lock:
                    self._walk_all(port.name, port.read_burst(BURST_FRAMES))
                return True
            walked, queued = bursts.take(self._numbers.number(port.name), BURST_FRAMES, self.clock())
            if walked or queued:
                with self.lock:
                    before = self._deadline()
                    self._finish(port.name, walked, queued)
                    if self._deadline() != before:
                        os.eventfd_write(self._wake, 1)  # it sleeps until the deadline of before
        except PortGone as gone:
            with self.lock:
                self._port_gone(port, gone)
            os.eventfd_write(self._wake, 1)
            return False
        except Exception as error:  # noqa: BLE001 - a thread that ends takes its ports along
            with self.lock:
                self._bugs.add(error, f"in a burst of {port.name}", b"")
        return True

    def put(self, number: int, frame: bytes, gso: GsoHeader | None) -> None:
        """Write a frame that the flow table repeated to its out-port."""
        name = self._numbers.name(number)
        write = self._writers.get(name)
        try:
            refusal = Drop.PORT_ABSENT if write is None else write(frame, gso)
        except Exception as error:  # noqa: BLE001 - as in `walk`
            self._bugs.add(error, f"on a frame for {name}", frame)
            refusal = Drop.WALK_FAULT
        if refusal is not None:
            self._walk.refused(name, refusal)

    def walk(self, name: str, burst: Iterable[ReceivedFrame]) -> None:
        """Walk frames that came in by the port `name`, and carry out the effects of each."""
        receive, carry_out = self._walk.receive, self.carry_out
        now = self.clock()
        watchers = self._watchers.get(name, ())
        for frame, gso in burst:
            for watcher in watchers:
                watcher(name, "in", frame, gso)
            try:
                effects = receive(name, frame, now, gso)
                if effects:
                    carry_out(effects)
            except Exception as error:  # noqa: BLE001 - no frame ends the gateway; the log gets it whole
                self._bugs.add(error, f"on a frame of {name}", frame)
                self._walk.failed(name)

    def _woken(self, _events: int) -> None:
        os.eventfd_read(self._wake)

    def _call_after_bursts(self) -> None:
        for callback in self._after:
            self._call(callback)

    def _fire(self, deadline: int | None) -> None:
        """Fire the timers of the walk, the first of which is due at `deadline`, then those of the process."""
        now = self.clock()
        if deadline is not None and deadline <= now:
            try:
                self.carry_out(self._walk.tick(now))
            except Exception as error:  # noqa: BLE001 - nor does a timer
                self._bugs.add(error, "on a timer", b"")
                self._walk.failed(None)
                self._resume_ticks_ns = now + PAUSE_AFTER_BUG_NS
        while self._timers and self._timers[0][0] <= now:
            _, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self._call(timer.callback)

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - a bug in what serves people does not end the forwarding
            self._bugs.add(error, "beside the frames", b"")

    def _walk_deadline(self) -> int | None:
        deadline = self._walk.next_deadline()
        return None if deadline is None else max(deadline, self._resume_ticks_ns)

    def _deadline(self) -> int | None:
        """The time at which the loop has something to do even if nothing comes until then; None for never."""
        return self._or_timer(self._walk_deadline())

    def _or_timer(self, deadline: int | None) -> int | None:
        return earliest(deadline, self._timers[0][0] if self._timers else None)

    def _timeout(self, deadline: int | None, longest_s: float | None) -> float | None:
        deadline = self._or_timer(deadline)
        if deadline is None:
            return longest_s
        until_s = max(deadline - self.clock(), 0) / SECOND_NS  # epoll rounds up to milliseconds: never early
        return min(until_s, _LONGEST_WAIT_S if longest_s is None else longest_s)

    def _port_gone(self, port: Port, gone: PortGone) -> None:
        if self._ports.pop(port.fileno(), None) is not None:
            with suppress(OSError):
                self._epoll.unregister(port.fileno())
        if self.on_gone is None:
            raise gone
        self.on_gone(port, gone)
