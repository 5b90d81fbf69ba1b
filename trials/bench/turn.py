"""One contestant's turn: everything that is measured of it in one round, on a lab that was built for it.

The order is from light to heavy, and memory comes last. A task that a contestant cannot do is noted and does not end
the turn.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bridge.ports.namespace import entered
from lab.namespace import Namespace
from lab.process import CommandFailed, LabProcess
from lab.topology import Lab, topology
from trials.bench import usage
from trials.bench.contestants import FAILURES, Contestant, Running
from trials.bench.load import PAYLOAD_BYTES
from trials.bench.search import Trial, highest_rate

STEP_S = 0.4
"""Of the search for the UDP rate."""
SETTLE_S = 0.4
"""Others are watched that long before a turn; the namespaces of the one before go meanwhile."""
CALLERS = 8
_PINGS, _PING_PAUSE_S = 400, 0.002
_STREAMS = (1, 4)
_DRAINED_TRIES = 50
_BUSY_TRIES, _BUSY_PAUSE_S = 20, 0.05
_PING_MS = re.compile(r"time=([0-9.]+) ms")
_PING_LOSS = re.compile(r"([0-9.]+)% packet loss")


class Measure(NamedTuple):
    """A measurement as people read it: a column of the table."""

    name: str
    unit: str
    frames: str
    direction: str
    is_better: str
    """`more` or `less`."""


_BULK = "TCP super-frames where the path takes them, else MTU-sized; 128 KiB writes"
_UDP = f"UDP, {PAYLOAD_BYTES} bytes of payload, 64-byte frames, one system call a burst"
_CALL = "TCP, 16 bytes there and back"
_ECHO = "ICMP echo, 98-byte frames, 500/s"
UP, DOWN, ROUND = "LAN to outside", "outside to LAN", "there and back"

MEASURES = {
    "ping_p50_us": Measure("ping idle, p50", "us", _ECHO, ROUND, "less"),
    "ping_p99_us": Measure("ping idle, p99", "us", _ECHO, ROUND, "less"),
    "tcp_1_up": Measure("TCP, 1 stream, up", "Mbit/s", _BULK, UP, "more"),
    "tcp_1_down": Measure("TCP, 1 stream, down", "Mbit/s", _BULK, DOWN, "more"),
    "tcp_4_up": Measure("TCP, 4 streams, up", "Mbit/s", _BULK, UP, "more"),
    "tcp_4_down": Measure("TCP, 4 streams, down", "Mbit/s", _BULK, DOWN, "more"),
    "cpu_gb_up": Measure("CPU per GB, 1 stream, up", "s/GB", _BULK, UP, "less"),
    "cpu_gb_down": Measure("CPU per GB, 1 stream, down", "s/GB", _BULK, DOWN, "less"),
    "cpu_gb_far_up": Measure("CPU per GB of the far end, 1 stream, up", "s/GB", _BULK, UP, "less"),
    "cpu_gb_far_down": Measure("CPU per GB of the far end, 1 stream, down", "s/GB", _BULK, DOWN, "less"),
    "ping_load_p50_us": Measure("ping under TCP, p50", "us", f"{_ECHO}; beside one TCP stream up", ROUND, "less"),
    "ping_load_p99_us": Measure("ping under TCP, p99", "us", f"{_ECHO}; beside one TCP stream up", ROUND, "less"),
    "udp_kpps": Measure("64-byte UDP, loss < 1 %", "kpps", _UDP, UP, "more"),
    "cpu_mpkt": Measure("CPU per million packets", "s", _UDP, UP, "less"),
    "calls": Measure("new TCP connections", "1/s", f"{_CALL}; {CALLERS} callers in turns of their own", ROUND, "more"),
    "rss_mb": Measure("memory after all of it", "MB", "resident, near end", "", "less"),
}


class Sample(NamedTuple):
    """One value of one round. `loss` is a share, None where it is not known."""

    value: float
    loss: float | None = None
    remark: str = ""


class Turn(NamedTuple):
    """The samples of one turn by their key in `MEASURES`; `missing` has the reason for each that could not be taken."""

    contestant: str
    path: str
    samples: dict[str, Sample]
    missing: dict[str, str]
    beside: usage.Beside
    stolen_s: float
    says: str = ""
    """Its own words about itself once it ran."""


class TurnStage:
    """A running contestant with the far ends of its load."""

    def __init__(self, lab: Lab, running: Running, stack: ExitStack) -> None:
        self._lab = lab
        self._running = running
        self.says = running.says
        self._stack = stack
        self._client, self._server = lab.namespaces[running.client], lab.namespaces[running.server]
        for namespace in {self._client.name, self._server.name, "gw"}:  # as many calls in a turn as there are ports
            with entered(namespace):
                Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("1024 65535")
        self._has_iperf3 = shutil.which("iperf3") is not None
        self.service(self._server, "serve", running.target)
        self._sink = self.service(self._server, "sink", running.target, listens=True)
        self._sender = self.service(self._client, "datagrams", running.target, listens=True)
        if self._has_iperf3:
            words = ("iperf3", "--server", "--bind", running.target, "--interval", "0", "--forceflush")
            listener = self._server.start(*words)
            stack.callback(listener.stop)
            while "listening" not in listener.line():
                pass

    def service(self, where: Namespace, *words: str, listens: bool = False) -> LabProcess:
        """A program of `trials.bench.load` that goes on until the turn ends."""
        process = where.start_python("-m", "trials.bench.load", *words, listens=listens)
        self._stack.callback(process.stop)
        if process.line() != "ready":
            raise CommandFailed(f"{' '.join(words)} does not begin\n{process.errors()}")
        return process

    def cpu(self, ends: tuple[LabProcess, ...]) -> float:
        """CPU seconds so far: of those processes, or of the machine where there are none."""
        if not self._running.near:
            return usage.machine().busy_s
        return usage.cpu_seconds(usage.with_children(process.pid for process in ends))

    def tcp(self, streams: int, direction: str, seconds: int) -> dict[str, Sample]:
        """Bulk TCP that way; with one stream also the CPU seconds per GB that arrived."""
        near, far = self.cpu(self._running.near), self.cpu(self._running.far)
        size_bytes, took_s, loss = self._bulk(streams, direction, seconds)
        spent = {"cpu_gb_": self.cpu(self._running.near) - near}
        if self._running.far:
            spent["cpu_gb_far_"] = self.cpu(self._running.far) - far
        if not size_bytes:
            raise CommandFailed("no byte arrived")
        found = {f"tcp_{streams}_{direction}": Sample(size_bytes * 8 / took_s / 1e6, loss)}
        if streams == 1:
            found |= {key + direction: Sample(value / size_bytes * 1e9, loss) for key, value in spent.items()}
        return found

    def _bulk(self, streams: int, direction: str, seconds: int) -> tuple[int, float, float | None]:
        """Bytes that arrived, the time, and the share of segments that were sent again (not known without iperf3)."""
        limit_s = seconds + 20.0
        if not self._has_iperf3:
            words = ("-m", "trials.bench.load", "stream", self._running.target, direction, str(streams), str(seconds))
            told = _document(self._client.python(*words, timeout_s=limit_s))
            return int(told["bytes"]), float(told["seconds"]), None
        command = ["iperf3", "--client", self._running.target, "--json", "--time", str(seconds)]
        command += ["--parallel", str(streams), *(["--reverse"] if direction == "down" else [])]
        for _ in range(_BUSY_TRIES):
            printed = self._client.run(*command, timeout_s=limit_s, check=False)
            told = _document(printed[printed.find("{") :])
            if "busy" not in str(told.get("error")):  # its server may not be done with the test before
                break
            time.sleep(_BUSY_PAUSE_S)
        if "error" in told:
            raise CommandFailed(f"iperf3: {told['error']}")
        sent, received = told["end"]["sum_sent"], told["end"]["sum_received"]
        segment_bytes = told["start"].get("tcp_mss_default") or 1448
        again = sent.get("retransmits", 0) * segment_bytes / max(sent["bytes"], 1)
        return int(received["bytes"]), float(received["seconds"]), again

    def udp(self) -> dict[str, Sample]:
        """The highest rate of 64-byte frames with less than 1 % loss, and what it costs."""
        spent: dict[Trial, float] = {}

        def step(rate: float) -> Trial:
            before, received = self.cpu(self._running.near), self._received()
            self._sender.say(json.dumps({"rate": rate, "seconds": STEP_S}))
            told = json.loads(self._sender.line())
            arrived = self._drained() - received
            trial = Trial(told["sent"] / told["seconds"], arrived / told["seconds"])
            spent[trial] = (self.cpu(self._running.near) - before) / max(arrived, 1) * 1e6
            return trial

        found = highest_rate(step)
        if found.best is None:
            raise CommandFailed(f"{found.trials} rates were tried, each lost more than 1 %")
        remark = "bound by the sender" if found.is_sender_bound else ""
        loss = found.best.loss
        return {
            "udp_kpps": Sample(found.best.received / 1e3, loss, remark),
            "cpu_mpkt": Sample(spent[found.best], loss, remark),
        }

    def _received(self) -> int:
        self._sink.say("")
        return int(json.loads(self._sink.line())["received"])

    def _drained(self) -> int:
        """Datagrams that have arrived, once no more come."""
        newest = self._received()
        for _ in range(_DRAINED_TRIES):  # the sink answers only when nothing came for some milliseconds
            before, newest = newest, self._received()
            if newest == before:
                break
        return newest

    def calls(self, seconds: int) -> dict[str, Sample]:
        """New TCP connections a second."""
        words = ("-m", "trials.bench.load", "connections", self._running.target, str(seconds), str(CALLERS))
        told = _document(self._client.python(*words, timeout_s=seconds + 20.0))
        done, failed = int(told["done"]), int(told["failed"])
        if not done:
            raise CommandFailed(f"no connection, {failed} failed")
        return {"calls": Sample(done / float(told["seconds"]), failed / (done + failed))}

    def ping(self, key: str) -> dict[str, Sample]:
        """Round-trip times: `KEY_p50_us`, `KEY_p99_us`."""
        words = ("ping", "-n", "-i", str(_PING_PAUSE_S), "-c", str(_PINGS), "-W", "1", self._running.target)
        printed = self._client.run(*words, check=False)
        times = [float(text) * 1e3 for text in _PING_MS.findall(printed)]
        lost = _PING_LOSS.search(printed)
        if len(times) < 2 or lost is None:
            raise CommandFailed("no echo came back")
        cuts = statistics.quantiles(times, n=100)
        return {f"{key}_{name}_us": Sample(cuts[at], float(lost[1]) / 100) for name, at in (("p50", 49), ("p99", 98))}

    def ping_under_load(self) -> dict[str, Sample]:
        """The same beside one TCP stream up."""
        seconds = max(round(_PINGS * _PING_PAUSE_S) + 1, 2)
        target = self._running.target
        if self._has_iperf3:
            load = self._client.start("iperf3", "--client", target, "--json", "--time", str(seconds))
        else:
            load = self._client.start_python("-m", "trials.bench.load", "stream", target, "up", "1", str(seconds))
        try:
            let_it_begin = ("ping", "-n", "-i", "0.05", "-c", "4", "-W", "1", target)
            self._client.run(*let_it_begin, check=False)
            found = self.ping("ping_load")
            load.finish()
        finally:
            load.stop()
        return found

    def memory(self) -> dict[str, Sample]:
        """Resident memory of the near end now; the kernel's is no process's."""
        if not self._running.near:
            return {}
        resident = usage.resident_bytes(usage.with_children(process.pid for process in self._running.near))
        return {"rss_mb": Sample(resident / 1e6)}


def take_turn(contestant: Contestant, seconds: int) -> Turn:
    """Build a lab, start the contestant, measure, take everything down. `seconds` of each TCP load."""
    around = usage.beside(SETTLE_S)
    stolen_s = usage.machine().stolen_s
    samples: dict[str, Sample] = {}
    missing: dict[str, str] = {}
    says = ""
    try:
        with _stage(contestant) as stage:
            says = stage.says
            for key, once in _steps(stage, seconds):
                try:
                    samples |= once()
                except FAILURES as failure:
                    missing[key] = str(failure).strip()
    except FAILURES as failure:
        missing["start"] = str(failure).strip()
    return Turn(contestant.name, contestant.path, samples, missing, around, usage.machine().stolen_s - stolen_s, says)


@contextmanager
def _stage(contestant: Contestant) -> Iterator[TurnStage]:
    with topology() as lab, ExitStack() as stack:
        yield TurnStage(lab, contestant.set_up(lab, stack), stack)


def _steps(stage: TurnStage, seconds: int) -> Iterator[tuple[str, Callable[[], dict[str, Sample]]]]:
    yield "ping", partial(stage.ping, "ping")
    for streams in _STREAMS:
        for direction in ("up", "down"):
            yield f"tcp_{streams}_{direction}", partial(stage.tcp, streams, direction, seconds)
    yield "ping_load", stage.ping_under_load
    yield "udp", stage.udp
    yield "calls", partial(stage.calls, seconds)
    yield "memory", stage.memory


def _document(printed: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(printed.strip())
    except ValueError as error:
        raise CommandFailed(f"no document: {printed.strip()[:200]}") from error
    return found
