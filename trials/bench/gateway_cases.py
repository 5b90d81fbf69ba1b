"""Our gateway alone, measured in the lab: its start, a reload under load, many live flows, its memory full.

The load is numbered datagrams from a LAN host to a host behind the ISP router, so that a lost frame and a pause are
seen where frames arrive.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

from lab.demo import prefix_list
from lab.namespace import Namespace
from lab.process import CommandFailed, LabProcess
from lab.topology import HOSTS, OFFLOADED, TAP0, Lab, topology
from trials.bench import usage
from trials.bench.contestants import FAILURES, OURS, PREFIXES, fast, offload_configuration
from trials.bench.figure import Figure, summary
from trials.bench.load import PAYLOAD_BYTES
from trials.bench.search import Trial, highest_rate

GATEWAY = "gateway"
MAC = "02:00:00:00:c8:02"
RELOADED = 10_000
LIVE_FLOWS = 64_512
"""All the UDP ports from 1024 up: one outside address has no more."""
FEW_FLOWS = 100
_CLIENT, _SERVER = "lan3", "isp"
_START_RATE, _RELOAD_RATE = 1_000, 5_000
_OPENING_RATES = (12_000, 8_000, 5_000)
"""Flows a second that the walk sees, the next one where the one before lost packets, and so flows."""
_LEAST_RATE, _MOST_RATE = 5_000, 150_000
_WINDOW_S = 0.5
_FLOWS_S = 1.0
_NUMBERED = "numbered UDP, 8 bytes of payload"
_UDP = f"UDP, {PAYLOAD_BYTES} bytes of payload, 64-byte frames"
_UP = "LAN to outside"


class Cases(NamedTuple):
    """The figures, and what could not be measured with the reason."""

    figures: list[Figure]
    missing: dict[str, str]


def cases(rounds: int) -> Cases:
    """All of them."""
    found: list[Figure] = []
    missing: dict[str, str] = {}
    for name, case in (("start", _start), ("reload, many flows, memory", _reload_and_flows)):
        print(f"  our gateway: {name} ...", file=sys.stderr, flush=True)
        try:
            with topology() as lab, ExitStack() as stack:
                found += case(lab, stack, rounds)
        except FAILURES as failure:
            missing[name] = str(failure).strip()
    return Cases([figure._replace(path=GATEWAY, contestant=OURS) for figure in found], missing)


def _service(stack: ExitStack, where: Namespace, *words: str) -> LabProcess:
    process = where.start_python("-m", "trials.bench.load", *words, listens=True)
    stack.callback(process.stop)
    if process.line() != "ready":
        raise CommandFailed(f"{' '.join(words)} does not begin\n{process.errors()}")
    return process


def _prepare(lab: Lab, prefixes: int) -> None:
    lab.configure(offload_configuration().replace("[tap0]", f'[tap0]\nmac = "{MAC}"', 1), prefix_list(prefixes))
    # The host knows the gateway's MAC address: its kernel would ask for it only once a second while nobody answers.
    lab.namespaces[_CLIENT].ip(f"neigh replace {TAP0} lladdr {MAC} dev eth0 nud permanent")


def _start(lab: Lab, stack: ExitStack, rounds: int) -> list[Figure]:
    """From the start of the program to the first frame that a host behind the ISP router gets."""
    _prepare(lab, PREFIXES)
    _service(stack, lab.namespaces[_CLIENT], "numbered", OFFLOADED, str(_START_RATE))
    values = []
    for _ in range(rounds):
        arrivals = _service(stack, lab.namespaces[_SERVER], "arrivals", OFFLOADED)
        arrivals.say("first")
        began = time.monotonic()
        lab.start_gateway(fast(OURS))
        values.append(float(json.loads(arrivals.line())["first_s"]) - began)
        lab.remove_gateway()
        arrivals.stop()
    figure = summary(f"start to the first forwarded frame, {PREFIXES:,} prefixes", "s", values)
    return [figure._replace(key="start_s", frames=f"{_NUMBERED}, {_START_RATE}/s", direction=_UP)]


def _reload_and_flows(lab: Lab, stack: ExitStack, rounds: int) -> list[Figure]:
    """One gateway for both: its memory is read when it has as many links and prefixes as the goal says."""
    _prepare(lab, RELOADED)
    gateway = lab.start_gateway(fast(OURS))
    stack.callback(lab.remove_gateway)
    found = list(_reloads(lab, rounds))
    found += _flows(lab, gateway, rounds)
    full = summary(f"memory with {LIVE_FLOWS:,} links and {RELOADED:,} prefixes", "MB", [_resident_mb(gateway)])
    links = len(lab.ask("alias.show")["links"])  # asked afterwards: the answer takes memory too
    others = usage.resident_bytes(usage.with_children([gateway.pid])[1:]) / 1e6
    remark = f"{links:,} links at that time; {others:.1f} MB more in its warden"
    return [*found, full._replace(key="rss_full_mb", remark=remark)]


def _reloads(lab: Lab, rounds: int) -> Iterator[Figure]:
    """Another list of as many prefixes each time, so that all of the table changes."""
    times, pauses, quiet, lost_frames, shares = [], [], [], [], []
    with ExitStack() as stack:
        arrivals = _service(stack, lab.namespaces[_SERVER], "arrivals", OFFLOADED)
        _service(stack, lab.namespaces[_CLIENT], "numbered", OFFLOADED, str(_RELOAD_RATE))
        arrivals.say("first")
        arrivals.line()
        for turn in range(rounds):
            _window(arrivals)
            time.sleep(_WINDOW_S)
            before = _window(arrivals)
            (lab.folder / "offload.txt").write_text(prefix_list(RELOADED - 1 - turn))
            began = time.monotonic()
            lab.ask("reload")
            times.append((time.monotonic() - began) * 1e3)
            time.sleep(_WINDOW_S)  # what was asked for may take effect after the answer
            after = _window(arrivals)
            sent = after["last"] - before["last"]
            lost = sent - (after["received"] - before["received"])
            lost_frames.append(lost)
            shares.append(100 * lost / max(sent, 1))
            pauses.append(after["longest_s"] * 1e3)
            quiet.append(before["longest_s"] * 1e3)
    frames, loss = f"{_NUMBERED}, {_RELOAD_RATE}/s", max(shares)
    for name, unit, values, key in (
        ("takes", "ms", times, "reload_ms"),
        ("frames lost", "frames", lost_frames, "reload_lost"),
        ("longest pause between two frames", "ms", pauses, "reload_pause_ms"),
        ("longest pause without a reload", "ms", quiet, "quiet_pause_ms"),
    ):
        told = f"reload of {RELOADED:,} prefixes under load: {name}"
        yield summary(told, unit, values)._replace(key=key, frames=frames, direction=_UP, loss_percent=loss)


def _window(arrivals: LabProcess) -> dict[str, float]:
    """Datagrams that have arrived so far; the longest pause since the question before."""
    arrivals.say("all")
    told: dict[str, float] = json.loads(arrivals.line())
    return told


def _flows(lab: Lab, gateway: LabProcess, rounds: int) -> Iterator[Figure]:
    """CPU per packet with few and with many flows, in turns. With many every packet is another flow's than the one
    before, which no cache likes, and each flow is walked again when its lease runs out (`flow.table.LEASE_S`): that is
    part of what many flows cost."""
    costs: dict[int, list[float]] = {FEW_FLOWS: [], LIVE_FLOWS: []}
    losses: dict[int, list[float]] = {FEW_FLOWS: [], LIVE_FLOWS: []}
    with ExitStack() as stack:
        sink = _service(stack, lab.namespaces[_SERVER], "sink", OFFLOADED)
        sender = _service(stack, lab.namespaces[_CLIENT], "datagrams", OFFLOADED)

        def arrived() -> int:
            """All that came, once nothing more does: the sink answers when it was quiet for some milliseconds."""
            newest = -1
            while True:
                sink.say("")
                before, newest = newest, int(json.loads(sink.line())["received"])
                if newest == before:
                    return newest

        def send(flows: int, rate: int, seconds: float) -> tuple[int, int]:
            before = arrived()
            order = {"rate": rate, "seconds": seconds, "flows": flows, "source": HOSTS[_CLIENT]}
            sender.say(json.dumps(order))
            sent = json.loads(sender.line())["sent"]
            return sent, arrived() - before

        def touch_each(flows: int) -> None:
            for rate in _OPENING_RATES:
                sent, received = send(flows, rate, 1.05 * flows / rate + 0.1)
                if received >= sent:
                    break

        def step(rate: float) -> Trial:
            sent, received = send(FEW_FLOWS, round(rate), _WINDOW_S)
            return Trial(sent / _WINDOW_S, received / _WINDOW_S)

        # Half of what passes without loss: work enough to be measured, and room for what many flows cost.
        best = highest_rate(step, most_steps=7).best
        rate = round(min(max(best.received / 2 if best else 0, _LEAST_RATE), _MOST_RATE))
        touch_each(LIVE_FLOWS)  # makes the links
        touch_each(LIVE_FLOWS)  # renews what has run out since: decisions are walked again from time to time
        for _ in range(rounds):
            for flows, values in costs.items():
                before = usage.cpu_seconds([gateway.pid])
                sent, received = send(flows, rate, max(_FLOWS_S, flows / rate))
                if not received:
                    raise CommandFailed(f"none of {sent} packets of {flows} flows arrived")
                values.append((usage.cpu_seconds([gateway.pid]) - before) / received * 1e6)
                losses[flows].append(100 * max(1 - received / sent, 0))
    for flows, values in costs.items():
        figure = summary(f"CPU per packet, {flows:,} live flows", "us", values)
        frames = f"{_UDP}, {rate:,}/s, each packet another flow's"
        yield figure._replace(key=f"packet_us_{flows}", frames=frames, direction=_UP, loss_percent=max(losses[flows]))


def _resident_mb(gateway: LabProcess) -> float:
    return usage.resident_bytes([gateway.pid]) / 1e6
