"""`bridgectl demo`: the whole topology in namespaces on this machine, the real daemon, real traffic, in under a minute.

Builds `lab.topology`, starts the daemon with 4,600 offload prefixes and drives the four flows from real kernel stacks:
UDP, ping, traceroute, TCP both ways with SHA-256, a fragmented datagram, a hairpin. Each flow is shown hop by hop as
the gateway's live capture saw it and compared with the design's table. Exit code 0 where every check held, else 1.
Where no tun device or no namespace can be had, the same flows go through the forwarder as captures (`lab.rehearsal`).
"""

from __future__ import annotations

import argparse
import base64
import random
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Console

from bridge.control_client import ControlError, stream
from bridge.summary import summary
from lab.private import Impossible
from lab.process import Failed
from lab.topology import CONFIGURATION, HOSTS, OFFLOADED, ROUTER, TAP0, TAP1, TUN0, TUNNELLED, VPN_ALIAS, Lab, topology

PREFIXES = 4600
_CAPTURE_PORTS = ("tap0", "tap1", "tun0", "vpn")
_HAIRPIN = """
[[alias.forward]] # the hairpin: lan4 reaches lan3 by tap1's address
on = "tap1"
protocol = "tcp"
outside_port = 7777
inside = "192.168.200.3:7777"
"""


class Flow(NamedTuple):
    """One of the four flows: where its client is, the ports it passes, and the source that the far end must see."""

    name: str
    client: str
    address: str
    remote: str
    port: str
    beyond: str
    seen_as: str

    @property
    def hops(self) -> list[tuple[str, str]]:
        """(port, `source -> destination`) at the four hops, as the design's table has them."""
        return [
            (self.port, f"{self.address} -> {self.remote}"),
            (self.beyond, f"{self.seen_as} -> {self.remote}"),
            (self.beyond, f"{self.remote} -> {self.seen_as}"),
            (self.port, f"{self.remote} -> {self.address}"),
        ]


LAN = HOSTS["lan3"]
FLOWS = (
    Flow("LAN -> VPN", "lan3", LAN, TUNNELLED, "tap0", "vpn", VPN_ALIAS),
    Flow("host -> VPN", "gw", TUN0, TUNNELLED, "tun0", "vpn", TUN0),
    Flow("LAN -> offload", "lan3", LAN, OFFLOADED, "tap0", "tap1", TAP1),
    Flow("host -> offload", "gw", TUN0, OFFLOADED, "tun0", "tap1", TAP1),
)


def prefix_list(length: int = PREFIXES) -> str:
    """An offload list of that many /24s, 114.114.114.0/24 among them and 8.8.8.0/24 not: the same at every run."""
    rng = random.Random(length)
    found = {"114.114.114.0/24"}
    while len(found) < length:
        found.add(f"{rng.randrange(101, 126)}.{rng.randrange(256)}.{rng.randrange(256)}.0/24")
    return "\n".join(sorted(found)) + "\n"


class Stage:
    """The steps as they run, with their time, and the checks that failed."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.failures: list[str] = []
        self._began = time.monotonic()

    @contextmanager
    def step(self, words: str) -> Iterator[None]:
        """Say what begins, and how long it took."""
        began = time.monotonic()
        self.console.print(f"[bold]==[/] {words} ...", highlight=False)
        yield
        self.console.print(f"   done in {time.monotonic() - began:.1f} s", style="dim", highlight=False)

    def check(self, held: bool, words: str) -> None:
        """Say whether something held; the exit code remembers."""
        self.console.print(f"   {'[green]ok[/]    ' if held else '[red]FAILED[/]'} {words}", highlight=False)
        if not held:
            self.failures.append(words)

    def show_hops(self, flow: Flow, hops: Sequence[tuple[str, str]]) -> None:
        """A flow at its four hops: (port, `source -> destination`)."""
        places = ("request", "beyond", "reply there", "reply")
        for place, (port, ends) in zip(places, hops, strict=False):
            self.console.print(f"   {flow.name:16}{place:12} {port:5} {ends}", highlight=False)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began


class Watch:
    """Live captures of all ports, by the control socket, while a flow passes."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._seen: list[tuple[int, str, str, bytes]] = []
        self._streams = [stream(lab.socket_path, "capture", {"port": port}) for port in _CAPTURE_PORTS]
        self._threads = []
        for port, records in zip(_CAPTURE_PORTS, self._streams, strict=True):
            next(records)  # the capture is on from here
            thread = threading.Thread(target=self._read, args=(port, records), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _read(self, port: str, records: Iterator[dict[str, object]]) -> None:
        try:
            for record in records:
                frame = base64.b64decode(str(record["frame"]))
                self._seen.append((int(str(record["t_ns"])), port, str(record["direction"]), frame))
        except (ControlError, OSError, ValueError):
            return  # the gateway is gone: the demo says so elsewhere

    def hops(self, flow: Flow, deadline_s: float = 5.0) -> list[tuple[str, str]]:
        """The first four UDP packets between the flow's ends, in order of time: (port, `source -> destination`)."""
        end = time.monotonic() + deadline_s
        while True:
            found: list[tuple[str, str]] = []
            for _, port, _, frame in sorted(self._seen, key=lambda seen: seen[0]):
                packet = frame[14:] if port.startswith("tap") else frame
                ends = [".".join(map(str, packet[at : at + 4])) for at in (12, 16)]
                is_udp = len(packet) > 28 and packet[9] == 17 and (frame[12:14] == b"\x08\x00" or packet is frame)
                if is_udp and flow.remote in ends:
                    found.append((port, f"{ends[0]} -> {ends[1]}"))
            if len(found) >= 4 or time.monotonic() > end:
                return found[:4]
            time.sleep(0.02)

    def forget(self) -> None:
        """Begin anew, for the next flow."""
        self._seen.clear()

    def lines(self, flow: Flow) -> list[str]:
        """What was seen of a flow, a line each."""
        return [
            f"{port:5}{direction:4}{summary(frame, ethernet=port.startswith('tap'))}"
            for _, port, direction, frame in sorted(self._seen, key=lambda seen: seen[0])
            if flow.remote in summary(frame, ethernet=port.startswith("tap"))
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: `bridgectl demo [--megabytes N] [--replay]`."""
    parser = argparse.ArgumentParser(prog="bridgectl demo", description="the four flows on this machine")
    parser.add_argument("--megabytes", type=int, default=100, help="of each TCP transfer, each way (default 100)")
    parser.add_argument("--replay", action="store_true", help="without devices: the same flows as captures")
    options = parser.parse_args(arguments)
    console = Console(soft_wrap=True)
    stage = Stage(console)
    if not options.replay:
        try:
            with topology() as lab:
                _run(stage, lab, options.megabytes * 1_000_000)
        except Impossible as reason:
            console.print(f"No lab here: {reason}. The same flows as captures instead.", highlight=False)
            options.replay = True
        except Failed as failure:
            console.print(str(failure), markup=False, highlight=False)
            return 1
    if options.replay:
        from lab.rehearsal import rehearse  # noqa: PLC0415 - only where there is no lab

        rehearse(stage, FLOWS)
    if stage.failures:
        console.print(f"\n{len(stage.failures)} checks failed", style="bold red")
        return 1
    console.print(f"\nAll checks held, {stage.elapsed_s:.0f} s. Everything is removed again.", style="bold green")
    return 0


def _run(stage: Stage, lab: Lab, size_bytes: int) -> None:
    lab.configure(CONFIGURATION + _HAIRPIN, prefix_list())
    stage.console.print(f"LAN hosts {', '.join(HOSTS.values())}; gateway {TAP0}; ISP router {ROUTER} with {OFFLOADED};")
    stage.console.print(f"behind the vpn port {TUNNELLED}: a plain tun device stands in for the tunnel, unencrypted.")
    with stage.step(f"starting the far ends and the gateway ({PREFIXES} offload prefixes)"):
        lab.serve()
        lab.start_gateway()
    with stage.step("UDP request and reply, each hop as the gateway saw it"):
        _show_hops(stage, lab)
    with stage.step("ping"):
        for flow in FLOWS:
            _ping(stage, lab, flow)
    with stage.step("traceroute"):
        for flow in FLOWS:
            _traceroute(stage, lab, flow)
    with stage.step(f"TCP, {size_bytes // 1_000_000} MB each way, SHA-256 compared"):
        for flow in FLOWS:
            _transfer(stage, lab, flow.name, flow.client, flow.remote, flow.seen_as, size_bytes)
    with stage.step("a datagram of 4,000 bytes, fragmented by the sender's kernel"):
        for flow in FLOWS:
            told = lab.client(flow.client, "ask", flow.remote, "4000")
            stage.check(bool(told["ok"]), f"{flow.name}: answered, seen as {told['seen_as']}")
    with stage.step("hairpin: lan4 reaches lan3 by the address of tap1 and a static forward"):
        _transfer(stage, lab, "lan4 -> lan3", "lan4", TAP1, TAP1, size_bytes // 10)
    for words in (["arp"], ["alias"], ["stats"]):
        stage.console.print(f"\n$ bridgectl {' '.join(words)}", style="bold", highlight=False)
        lab_command = [sys.executable, "-m", "bridgectl", "--socket", str(lab.socket_path), *words]
        print(lab.namespaces["gw"].run(*lab_command).rstrip())
    with stage.step("stopping the gateway"):
        stage.check(lab.stop_gateway() == 0, "exit code 0")
        left = lab.namespaces["gw"].ip("-br link")
        gone = not any(name in left for name in ("tap0", "tap1", "tun0", "vpn0"))
        stage.check(gone, "its devices are gone with it")


def _show_hops(stage: Stage, lab: Lab) -> None:
    watch = Watch(lab)
    for flow in FLOWS:
        watch.forget()
        answer = lab.client(flow.client, "ask", flow.remote, "64")
        hops = watch.hops(flow)
        stage.show_hops(flow, hops)
        held = bool(answer["ok"]) and hops == flow.hops
        stage.check(held, f"{flow.name}: as the design's table says")
        if not held:
            for line in watch.lines(flow):
                stage.console.print(f"     {line}", highlight=False)


def _ping(stage: Stage, lab: Lab, flow: Flow) -> None:
    if shutil.which("ping") is None:
        told = lab.client(flow.client, "ping", flow.remote)
        stage.check(bool(told["ok"]), f"{flow.name}: {told['ms']} ms")
        return
    printed = lab.namespaces[flow.client].run("ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", flow.remote, check=False)
    last = printed.strip().splitlines()[-1]
    stage.check("3 received" in printed, f"{flow.name}: 3 packets, {last}")


def _traceroute(stage: Stage, lab: Lab, flow: Flow) -> None:
    """The first hop is the gateway (into tun0 its errors carry tap0's address), the last one the remote."""
    if shutil.which("traceroute") is not None:
        words = ("traceroute", "-n", "-q", "1", "-w", "2", "-m", "5", flow.remote)
        printed = lab.namespaces[flow.client].run(*words, check=False)
        hops = [line.split()[1] for line in printed.splitlines()[1:] if len(line.split()) > 1]
    else:
        hops = [str(lab.client(flow.client, "ping", flow.remote, ttl)["from"]) for ttl in ("1", "2")]
    stage.check(hops == [TAP0, flow.remote], f"{flow.name}: {' -> '.join(hops)}")


def _transfer(stage: Stage, lab: Lab, name: str, client: str, remote: str, seen_as: str, size_bytes: int) -> None:
    told = lab.client(client, "transfer", remote, str(size_bytes), str(size_bytes))
    rates = [size_bytes * 8 / 1e9 / max(told[key], 1e-3) for key in ("up_s", "down_s")]
    held = bool(told["ok"]) and str(told["seen_as"]).rpartition(":")[0] == seen_as
    stage.check(held, f"{name}: up {rates[0]:.1f}, down {rates[1]:.1f} Gbit/s, seen as {told['seen_as']}")


if __name__ == "__main__":
    sys.exit(main())
