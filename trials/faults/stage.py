"""Where a case is played: the lab, a gateway in it, the tunnel's other end, and traffic that is never silent.

A stage is built once and keeps gateway and far ends from case to case. `trials.faults.play` tears it down behind a case
that broke something for good. Nothing waits for a length of time: `hold` waits until the traffic has sent so much more.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from bridge.control.client import request
from lab.flows import PacketFlow
from lab.process import CommandFailed, LabProcess, run
from lab.second import SecondInstance
from lab.topology import LEASED_TAP1, OFFLOADED, ROUTER, STATIC_TAP1, TAP1, TUNNELLED, Lab
from lab.wireguard import FarEnd
from trials.cables.carrier import BadCable, BadWire, join_by_wire, spoil_isp_cable
from trials.faults.account import MILLISECOND_NS, FlowLosses, Window, account
from trials.faults.setting import Setting
from trials.traffic.lasting import TalkerEvent, TalkerEventKind, arrivals, events

FAR_ENDS = {"isp": OFFLOADED, "exit": TUNNELLED}
DISK_BYTES = 1 << 18
LEASE_S = 12
"""So short that a case sees renewal, rebinding and end: 6, 10.5 and 12 s."""
_POLL_S = 0.01
_WAIT_S = 30.0
_MARGIN_NS = 300 * MILLISECOND_NS
_SETTLED_S = 5.0
_LOOKS_S = 0.1


class Traffic:
    """A talker for one flow, and what it and its far end have recorded."""

    def __init__(self, lab: Lab, flow: PacketFlow, stream: int, rate: float) -> None:
        self.flow, self._stream, self.rate = flow, stream, rate
        self._path = lab.folder / f"talker-{stream}"
        self._path.touch()
        self._happened: list[TalkerEvent] = []
        self._sent_ns: dict[int, int] = {}
        self._attempts = 0
        self._answered_ns = self._streamed_ns = 0
        self._is_broken = False
        far = "isp" if flow.remote == OFFLOADED else "exit"
        self._arrivals = lab.folder / f"arrivals-{far}"
        words = ("-m", "trials.traffic.lasting", "talk", flow.remote, str(stream), str(rate), str(self._path))
        self._process = lab.namespaces[flow.client].start_python(*words, listens=True)

    def _follow(self) -> None:
        """Take in what has happened since the last look."""
        for one in events(self._path, len(self._happened)):
            self._happened.append(one)
            if one.kind in (TalkerEventKind.SENT, TalkerEventKind.REFUSED):
                self._attempts += 1
                self._sent_ns[one.number] = one.at_ns
            elif one.kind is TalkerEventKind.ANSWERED:
                self._answered_ns = max(self._answered_ns, self._sent_ns[one.number])
            elif one.kind is TalkerEventKind.STREAMED:
                self._streamed_ns = one.at_ns
            elif one.kind is TalkerEventKind.BROKEN:
                self._is_broken = True

    def attempts(self) -> int:
        """Datagrams that were sent or refused so far."""
        self._follow()
        return self._attempts

    def answers_since(self, at_ns: int) -> bool:
        """Whether a datagram was answered that was sent since then."""
        self._follow()
        return self._answered_ns > at_ns

    def streams_since(self, at_ns: int) -> bool:
        """Whether TCP brought anything back since then."""
        self._follow()
        return self._streamed_ns > at_ns

    @property
    def is_broken(self) -> bool:
        """Whether the TCP connection has failed."""
        self._follow()
        return self._is_broken

    def end(self) -> None:
        """Let it send no more, and wait for what is on its way."""
        self._process.say("")

    def document(self) -> dict[str, Any]:
        """Once it has ended: what became of its TCP connection."""
        return self._process.document(90.0)

    def account(self, window: Window) -> FlowLosses:
        """Its losses around the fault."""
        self._follow()
        return account(self.flow.name, self._happened, arrivals(self._arrivals, self._stream), window, _MARGIN_NS)

    def stop(self) -> None:
        """End it, in any state."""
        self._process.stop()
        self._path.unlink(missing_ok=True)


class FaultStage:
    """`lab`: without a gateway and without far ends. The stage ends what it began when `stack` is closed."""

    def __init__(self, lab: Lab, stack: ExitStack) -> None:
        self.lab = lab
        self.notes: list[str] = []
        self.faults: list[str] = []
        self.end: SecondInstance | FarEnd
        self.wire: BadWire | None = None
        self.isp_wire: BadCable | None = None
        self.wire_counts: dict[str, int] = {}
        self.traffic: dict[str, Traffic] = {}
        self._setting: Setting | None = None
        self._leases: LabProcess | None = None
        self._streams = 0
        self.began_ns = self.over_ns = 0
        self.disk.mkdir()
        run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "lab-disk", str(self.disk)])
        for name, address in FAR_ENDS.items():
            words = ("-m", "trials.traffic.lasting", "serve", address, str(lab.folder / f"arrivals-{name}"))
            server = lab.namespaces[name].start_python(*words)
            stack.callback(server.stop)
            if server.line() != "ready":
                raise CommandFailed(f"the far end in {name} does not listen\n{server.errors()}")
        stack.callback(self.tear_down)

    # Steps of cases

    @property
    def gateway(self) -> LabProcess:
        """The daemon."""
        assert self.lab.gateway is not None, "there is no gateway"
        return self.lab.gateway

    def gw(self, line: str) -> str:
        """`ip` on the gateway's machine."""
        return self.lab.namespaces["gw"].ip(line)

    def began(self) -> None:
        """The cause is there from now on. A case of several parts says so once."""
        self.began_ns = self.began_ns or time.monotonic_ns()

    def over(self) -> None:
        """The cause is gone."""
        self.over_ns = time.monotonic_ns()

    def note(self, text: str) -> None:
        """Something that the report should say."""
        self.notes.append(text)

    def expect(self, is_so: object, otherwise: str) -> None:
        """Something that must hold; where not it is a fault of the case, which goes on."""
        if not is_so:
            self.faults.append(otherwise)

    def attempts(self) -> int:
        """Datagrams that the first flow has sent, or tried to send."""
        return next(iter(self.traffic.values())).attempts()

    @property
    def rate(self) -> float:
        """How many it does in a second."""
        return next(iter(self.traffic.values())).rate

    def hold(self, seconds: float) -> None:
        """Wait until the traffic has sent, or tried to send, what it sends in so many seconds."""
        wanted = self.attempts() + round(seconds * self.rate)
        self.until(lambda: self.attempts() >= wanted, "the traffic goes on", seconds + _WAIT_S)

    def timed(self, question: str) -> float:
        """Seconds until the daemon has answered."""
        began = time.monotonic()
        self.lab.ask(question)
        return time.monotonic() - began

    def until(self, condition: Callable[[], object], what: str, deadline_s: float = _WAIT_S) -> None:
        """Wait for something to become true; `CommandFailed` where it does not."""
        deadline = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > deadline:
                raise CommandFailed(f"not within {deadline_s:g} s: {what}\n{self.gateway.errors()[-4000:]}")
            time.sleep(_POLL_S)

    def becomes(self, condition: Callable[[], object], deadline_s: float) -> bool:
        """Whether something becomes true in time."""
        with suppress(CommandFailed):
            self.until(condition, "", deadline_s)
            return True
        return False

    def passes(self, *flows: PacketFlow) -> None:
        """Wait until datagrams of the flows that are sent from now on are answered."""
        now = time.monotonic_ns()
        for flow in flows:
            self.until(lambda flow=flow: self.traffic[flow.name].answers_since(now), f"{flow.name} passes")  # type: ignore[misc]

    def start_gateway(self, program: str | None = None, more: dict[str, str] | None = None) -> None:
        """Start the daemon again, on the same files."""
        self.lab.start_gateway(more, program)

    @property
    def disk(self) -> Path:
        """A small file system, the one with the tunnel's stamps."""
        return self.lab.folder / "disk"

    @property
    def leases(self) -> LabProcess:
        """The ISP router's DHCP server."""
        assert self._leases is not None, "nobody lends addresses"
        return self._leases

    def lend(self, address: str) -> None:
        """Start the ISP router's DHCP server, without any memory: `address` is the first that it lends."""
        words = ("-m", "lab.leases", f"{address}/24", ROUTER, "--seconds", str(LEASE_S))
        self._leases = self.lab.namespaces["isp"].start_python(*words)
        if self._leases.line() != "ready":
            raise CommandFailed("the ISP router's DHCP server does not begin")

    def stop_leases(self) -> None:
        """End it, where it runs."""
        if self._leases is not None:
            self._leases.signal(signal.SIGCONT)
            self._leases.stop()
            self._leases = None

    def fill_disk(self) -> None:
        """Leave no room on it."""
        with suppress(OSError), (self.disk / "ballast").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    def free_disk(self) -> None:
        """Make room again."""
        (self.disk / "ballast").unlink()

    # One case

    def begin(self) -> None:
        """Forget the notes, faults and times of the case before."""
        self.notes, self.faults = [], []
        self.began_ns = self.over_ns = 0

    @contextmanager
    def talking(self, flows: Sequence[PacketFlow], rate: float) -> Iterator[None]:
        """Have every flow talk, `rate` datagrams a second each, while this lasts."""
        with ExitStack() as stack:
            for flow in flows:
                self._streams += 1
                talker = Traffic(self.lab, flow, self._streams, rate)
                stack.callback(talker.stop)
                self.traffic[flow.name] = talker
            stack.callback(self.traffic.clear)
            yield

    def measured(self, descriptors: int | None = None) -> tuple[dict[str, int], int, int | None]:
        """Drops, resident memory in KB, descriptors: once there are no more than `descriptors`, or the fewest of some
        looks, for a connection that has just ended is closed a moment later."""
        drops: dict[str, int] = self.lab.ask("stats")["drops"]
        status = Path(f"/proc/{self.gateway.pid}/status").read_text()
        memory_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        if descriptors is not None:
            self.becomes(lambda: (self._descriptors() or 0) <= descriptors, _SETTLED_S)
            return drops, memory_kb, self._descriptors()
        looks: list[int | None] = []
        self.becomes(lambda: looks.append(self._descriptors()), _LOOKS_S)
        return drops, memory_kb, min((look for look in looks if look is not None), default=None)

    def drops_beyond(self) -> dict[str, int]:
        """At the other end, where it tells them."""
        if isinstance(self.end, FarEnd):
            return {}
        drops: dict[str, int] = request(self.end.socket_path, "stats", {})["drops"]
        return drops

    def process_beyond(self) -> int | None:
        """The process id of the other end, where it is ours."""
        return None if isinstance(self.end, FarEnd) else self.end.pid

    def _descriptors(self) -> int | None:
        """None where we may not look: a process that cannot be dumped shows them to the machine's root alone."""
        try:
            return len(os.listdir(f"/proc/{self.gateway.pid}/fd"))
        except PermissionError:
            return None

    # The surroundings

    def set_up(self, setting: Setting) -> None:
        """Build everything around the gateway, and start it, where it does not stand so already."""
        if setting == self._setting and self.lab.gateway is not None and self.lab.gateway.is_running:
            return
        self.tear_down()
        lab = self.lab
        if setting.outside == "wire":
            self.wire = join_by_wire(lab, seed=7)
        if setting.isp == "wire":
            self.isp_wire = spoil_isp_cable(lab, seed=7)
        self.end = SecondInstance(lab) if setting.end == "ours" else FarEnd(lab)
        self.end.start()
        text = self.end.configuration().replace('"tunnel.json"', f'"{self.disk.name}/tunnel.json"')
        lab.configure(text.replace(STATIC_TAP1, LEASED_TAP1) if setting.is_leased else text)
        if setting.is_leased:
            self.lend(TAP1)
        self.start_gateway()
        if setting.is_leased:
            lab.await_lease()
        self._setting = setting

    def tear_down(self) -> None:
        """Back to a lab without anything in it."""
        self._setting = None
        self.lab.remove_gateway()
        self.stop_leases()
        self.lab.socket_path.with_suffix(".lease").unlink(missing_ok=True)
        if hasattr(self, "end"):
            self.end.stop()
            del self.end
        self.lab.part_outside()
        self.lab.mend_isp_cable()
        self.wire = self.isp_wire = None
        for path in (self.disk / "tunnel.json", self.lab.folder / "exit" / "tunnel.json"):
            path.unlink(missing_ok=True)
