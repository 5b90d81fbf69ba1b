"""Floods against a gateway that serves others meanwhile: `python -m trials.floods [--only NAME] [--seconds S]`.

One LAN host keeps ordinary flows, through tap1 and through the tunnel's port: datagrams that say when they were sent, a
TCP connection, new flows all the time (`trials.traffic.steady`). They are watched without a flood, and again while
somebody else floods (`trials.floods.frames`), in the same run against the same daemon: what is told is how the two
compare. Sender, gateway and both ends of the ordinary flows share this machine's cores, so that a part of what they
lose is lost to that.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lab.other_end import OUR_PORT
from lab.outside import OUTER_EXIT, OUTER_GATEWAY
from lab.process import CommandFailed, LabProcess
from lab.second import SecondInstance
from lab.topology import CONFIGURATION, OFFLOADED, TUNNELLED, Lab, topology
from trials.floods import page as flood_page
from trials.floods.initiations import PREFIX as CROWD

MACS = {"tap0": "02:00:00:00:c8:02", "tap1": "02:00:00:00:01:02"}
METRICS = "127.0.0.1:9586"
WATCHED_RATE = 500
FLOOD_RATE = 150_000
INITIATIONS_RATE = 10_000
CLIENTS = 10_000
MOST_FLOOD_S = 120.0
WAYS = {"tap1": OFFLOADED, "vpn": TUNNELLED}
_WARM_S = 0.3
_QUANTILES = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))


class Flood(NamedTuple):
    """A flood: its sender and its kind, which is one of `trials.floods.frames`, or `handshakes` or `clients`."""

    name: str
    says: str
    sender: str
    port: str
    kind: str


FLOODS = {
    flood.name: flood
    for flood in (
        Flood("syn", "a LAN host sends SYNs from random ports to random hosts, by both ways", "lan4", "tap0", "syn"),
        Flood("destinations", "a LAN host sends UDP to 100,000 destinations", "lan4", "tap0", "destinations"),
        Flood("ports", "a LAN host sends from every port by both ways: it takes all links that it may", "lan4", "tap0",
              "ports"),
        Flood("spoofed", "a LAN host sends from every port of every address of the LAN", "lan4", "tap0", "spoofed"),
        Flood("strangers", "the same, and every frame from another random MAC address", "lan4", "tap0", "strangers"),
        Flood("arp", "ARP requests and replies of random senders", "lan4", "tap0", "arp"),
        Flood("fragments", "later fragments without a first one, 512 bytes each", "lan4", "tap0", "fragments"),
        Flood("unsolicited", "SYNs and UDP of random hosts to every port of tap1", "isp", "tap1", "unsolicited"),
        Flood("errors", "ICMP errors of random routers that quote flows which do not exist", "isp", "tap1", "errors"),
        Flood("handshakes", "initiations of strangers to the tunnel's UDP port, from 256 addresses", "exit", "vpn",
              "handshakes"),
        Flood("clients", f"{CLIENTS} connections each to the control socket and to the metrics", "gw", "", "clients"),
    )
}  # fmt: skip


def configuration(text: str = CONFIGURATION, *, polices: bool = True) -> str:
    """The lab's, with known MAC addresses and with metrics."""
    if not polices:
        text += "\n[fast_path]\npolice = false\n"
    text = text.replace("[control]\n", f'[control]\nmetrics = "{METRICS}"\n')
    for port, mac in MACS.items():
        text = text.replace(f"[{port}]\n", f'[{port}]\nmac = "{mac}"\n')
    return text


def serve(lab: Lab, stack: ExitStack) -> None:
    """The far ends of the ordinary flows."""
    for name, address in {"isp": OFFLOADED, "exit": TUNNELLED}.items():
        process = lab.namespaces[name].start_python("-m", "trials.traffic.steady", "serve", address)
        stack.callback(process.stop)
        if process.line() != "ready":
            raise CommandFailed(f"nobody listens in {name}\n{process.errors()}")


def resident_kib(process: LabProcess, what: str = "VmRSS") -> int:
    """`VmRSS`: the daemon's resident memory; `VmHWM`: the most since `forget_peak`."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1])
    raise CommandFailed("the kernel tells no size")


def forget_peak(process: LabProcess) -> None:
    """Begin the peak of the resident memory anew (proc(5): clear_refs)."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def cpu_s(process: LabProcess) -> float:
    """CPU seconds of the process so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def observed(lab: Lab, seconds: float, *, tcp: bool = True) -> dict[str, Any]:
    """The ordinary flows of lan3 for a while, first the datagrams of both ways, then TCP on each if that is wanted."""
    lan3 = lab.namespaces["lan3"]

    def client(*words: str) -> dict[str, Any]:
        process = lan3.start_python("-m", "trials.traffic.steady", *words)
        try:
            return process.document(seconds + 30)
        finally:
            process.stop()

    with ThreadPoolExecutor(len(WAYS)) as pool:
        watched = {
            way: pool.submit(client, "watch", host, str(WATCHED_RATE), str(seconds)) for way, host in WAYS.items()
        }
        found: dict[str, Any] = {way: summed_up(one.result()) for way, one in watched.items()}
    for way, host in WAYS.items() if tcp else ():
        found[way]["tcp_mbit"] = client("pour", host, str(seconds)).get("bytes_a_second", 0.0) * 8 / 1e6
    return found


def summed_up(watched: dict[str, Any]) -> dict[str, Any]:
    """A watched flow in a few figures: shares and milliseconds."""
    found: dict[str, Any] = {
        "loss": watched["lost"] / max(watched["sent"], 1),
        "fresh": watched["fresh"],
        "fresh_loss": watched["fresh_lost"] / max(watched["fresh"], 1),
    }
    for key, name in (("there_us", "there_ms"), ("back_us", "back_ms"), ("fresh_us", "fresh_ms")):
        ordered = sorted(watched[key])
        if ordered:
            found[name] = {
                label: ordered[min(int(share * len(ordered)), len(ordered) - 1)] / 1000 for label, share in _QUANTILES
            }
    return found


Begin = Callable[[], Callable[[], dict[str, Any]]]
"""Begins a flood that is prepared, and gives what ends it and tells what was sent."""


def _program(lab: Lab, stack: ExitStack, sender: str, *words: str) -> Begin:
    process = lab.namespaces[sender].start_python("-m", *words, listens=True)
    stack.callback(process.stop)
    if process.line() != "ready":
        raise CommandFailed(f"the flood does not begin\n{process.errors()}")

    def begin() -> Callable[[], dict[str, Any]]:
        process.say("go")
        return partial(_end, process)

    return begin


def _end(process: LabProcess) -> dict[str, Any]:
    process.say("stop")
    return process.document()


def _initiations(lab: Lab, stack: ExitStack, public: str, rate: float) -> Begin:
    """`trials.floods.initiations`, from the exit's side."""
    exit_, gw = lab.namespaces["exit"], lab.namespaces["gw"]
    exit_.ip(f"route replace local {CROWD} dev lo")
    gw.ip(f"route replace {CROWD} via {OUTER_EXIT}")
    stack.callback(partial(gw.ip, f"route del {CROWD}"))
    stack.callback(partial(exit_.ip, f"route del local {CROWD} dev lo"))

    def begin() -> Callable[[], dict[str, Any]]:
        words = ("trials.floods.initiations", OUTER_GATEWAY, str(OUR_PORT), public, CROWD, str(1), str(round(rate)))
        process = exit_.start_python("-m", *words, listens=True)
        stack.callback(process.stop)
        for word in ("begun", "enough"):
            if process.line() != word:
                raise CommandFailed(f"the flood does not begin\n{process.errors()}")
        return partial(_end, process)

    return begin


def prepare(lab: Lab, stack: ExitStack, flood: Flood, rate: float, *, polices: bool) -> Begin:
    """Start the gateway, and whoever will flood it."""
    text, far = CONFIGURATION, None
    if flood.kind == "handshakes":
        far = SecondInstance(lab)
        stack.callback(lab.part_outside)
        stack.callback(far.stop)
        far.start()
        text = far.configuration()
    lab.configure(configuration(text, polices=polices))
    lab.start_gateway()
    stack.callback(lab.remove_gateway)
    if far is not None:
        return _initiations(lab, stack, far.ours.public, INITIATIONS_RATE * rate / FLOOD_RATE)
    if flood.kind == "clients":
        return _program(lab, stack, flood.sender, "trials.traffic.clients", str(lab.socket_path), METRICS, str(CLIENTS))
    words = ("trials.floods.frames", flood.kind, "eth0", MACS[flood.port], str(rate), str(MOST_FLOOD_S))
    return _program(lab, stack, flood.sender, *words)


def measure(
    lab: Lab, flood: Flood, seconds: float, rate: float = FLOOD_RATE, *, polices: bool = True, tcp: bool = True
) -> dict[str, Any]:
    """One flood against a gateway of its own: what `docs/floods.md` says of it. The lab `serve`s already. `polices`:
    False for a gateway that does not, to compare with."""
    with ExitStack() as stack:
        begin = prepare(lab, stack, flood, rate, polices=polices)
        gateway = lab.gateway
        assert gateway is not None, "`prepare` has started it"
        observed(lab, _WARM_S, tcp=tcp)
        quiet = observed(lab, seconds, tcp=tcp)
        before, before_kib = lab.ask("stats"), resident_kib(gateway)
        forget_peak(gateway)
        end, began, busy_s = begin(), time.monotonic(), cpu_s(gateway)
        observed(lab, _WARM_S, tcp=False)  # its first moments, in which the gateway falls behind, are not measured
        flooded = observed(lab, seconds, tcp=tcp)
        busy = (cpu_s(gateway) - busy_s) / (time.monotonic() - began)
        links = sum(1 for _ in lab.ask("alias.show")["links"]) if flood.kind != "clients" else None
        descriptors = len(os.listdir(f"/proc/{gateway.pid}/fd"))
        sent = end()
        after = lab.ask("stats")
        peak_kib = resident_kib(gateway, "VmHWM")
        errors = gateway.errors().splitlines()
    drops = {reason: count - before["drops"][reason] for reason, count in after["drops"].items()}
    read = None
    if flood.port in MACS:
        read = after["ports"][flood.port]["rx_packets"] - before["ports"][flood.port]["rx_packets"]
    return {
        "name": flood.name,
        "says": flood.says,
        "quiet": quiet,
        "flooded": flooded,
        "sent": sent["sent"],
        "rate": round(sent["rate"]),
        "let_in": sent.get(
            "left"
        ),  # of TCP also those that wait for the kernel, which lets them think that they are in
        "read": read,
        "drops": {reason: count for reason, count in drops.items() if count},
        "links": links,
        "busy": round(busy, 3),
        "memory_kib": {"before": before_kib, "peak": peak_kib},
        "descriptors": descriptors,
        "log_lines": len(errors),
    }


def run(
    names: Sequence[str], seconds: float, rate: float, say: Callable[[str], None], *, polices: bool
) -> list[dict[str, Any]]:
    """All of these floods, one after the other, in one lab."""
    found = []
    with topology() as lab, ExitStack() as stack:
        serve(lab, stack)
        for name in names:
            say(f"{name}: {FLOODS[name].says}")
            found.append(measure(lab, FLOODS[name], seconds, rate, polices=polices))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="trials.floods.run", description="what ordinary flows lose while others flood"
    )
    parser.add_argument("--only", action="append", choices=list(FLOODS), help="may be given again (default: all)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement (default 4)")
    parser.add_argument("--rate", type=float, default=FLOOD_RATE, help=f"frames a second (default {FLOOD_RATE})")
    parser.add_argument("--unpoliced", action="store_true", help="with fast_path.police = false, to compare with")
    parser.add_argument("-j", "--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument("--write-docs", action="store_true", help="write docs/floods.md")
    options = parser.parse_args(arguments)
    say = partial(print, file=sys.stderr, flush=True)
    found = run(options.only or list(FLOODS), options.seconds, options.rate, say, polices=not options.unpoliced)
    print(json.dumps({"version": 1, "floods": found}, indent=1) if options.json else flood_page.tables(found))
    if options.write_docs:
        path = flood_page.write(found, options.seconds)
        print(f"written: {os.path.relpath(path)}", file=sys.stderr)
    return 0
