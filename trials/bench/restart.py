"""The gap of a restart: `python -m trials.bench.restart [--rounds N] [--signal KILL|TERM] [--prefixes N]`.

The daemon is killed and started again at once, under conversations of UDP in both directions (a datagram a millisecond
each path, `trials.traffic.held`). Measured is the time from the signal (of SIGTERM: from the end of the process, which
forwards until then) to the first datagram that was sent after it and came through: from the LAN to the world, from the
world to the LAN, and from the world to a LAN where nobody says anything (only what the gateway took up from before the
restart can let that one in). Three ways: by tap1, by the plain device that stands in for the tunnel, and by the real
tunnel to a second instance.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from lab.demo import prefix_list
from lab.process import LabProcess
from lab.second import SecondInstance
from lab.topology import CONFIGURATION, HOSTS, OFFLOADED, TUNNELLED, Lab, topology

PORT = 7801
"""Of the far end; the LAN hosts share the source port, so that one of them gets another outside."""
SOURCE_PORT = 7900
DIRECTIONS = ("out", "in", "in, the LAN being silent")


class RestartPath(NamedTuple):
    """How packets get out: the far end's namespace and address, and how both ends are configured."""

    name: str
    far: str
    address: str
    prepare: Callable[[Lab, ExitStack], str | None]


def _plainly(_lab: Lab, _stack: ExitStack) -> str | None:
    return None


def _by_tunnel(lab: Lab, stack: ExitStack) -> str | None:
    end = SecondInstance(lab)
    stack.callback(end.stop)
    end.start()
    return end.configuration()


PATHS = (
    RestartPath("tap1", "isp", OFFLOADED, _plainly),
    RestartPath("vpn, a plain device", "exit", TUNNELLED, _plainly),
    RestartPath("vpn, the tunnel", "exit", TUNNELLED, _by_tunnel),
)


class Beat:
    """A conversation of a LAN host with the far end."""

    def __init__(self, lab: Lab, path: RestartPath, host: str, port: int, stack: ExitStack) -> None:
        self.far = lab.namespaces[path.far].start_python(
            "-m", "trials.traffic.held", "beat", path.address, str(port), listens=True
        )
        self.near = lab.namespaces[host].start_python(
            "-m", "trials.traffic.held", "beat", HOSTS[host], str(SOURCE_PORT), path.address, str(port), listens=True
        )
        for end in (self.far, self.near):
            stack.callback(end.stop)
            assert end.line() == "ready"
        self.hear(self.near, self.ask(self.near, time.monotonic_ns()))  # both ways

    @staticmethod
    def ask(end: LabProcess, since_ns: int) -> int:
        """Have an end wait for a datagram that was sent after a time."""
        end.say(f"since {since_ns}")
        return since_ns

    @staticmethod
    def hear(end: LabProcess, since_ns: int) -> float:
        """When it came, in seconds since then."""
        return float(json.loads(end.line())["heard_ns"] - since_ns) / 1e9

    def near_is_to(self, word: str) -> None:
        """`mute` or `speak`."""
        self.near.say(word)
        self.near.line()


@contextmanager
def conversations(lab: Lab, path: RestartPath) -> Iterator[tuple[Beat, Beat]]:
    """Of two LAN hosts, with the same source port."""
    with ExitStack() as stack:
        yield Beat(lab, path, "lan3", PORT, stack), Beat(lab, path, "lan4", PORT + 1, stack)


def restart(lab: Lab, number: signal.Signals, ends: Sequence[LabProcess]) -> list[float]:
    """Kill the daemon and start it again; the seconds until something comes to each of these ends."""
    assert lab.gateway is not None
    began_ns = time.monotonic_ns()
    lab.gateway.signal(number)
    if number == signal.SIGTERM:  # it forwards to the end
        lab.gateway.wait()
        began_ns = time.monotonic_ns()
    for end in ends:
        Beat.ask(end, began_ns + 1_000_000)  # a datagram that had passed the gateway may be heard after the signal
    lab.gateway.wait()
    lab.start_gateway()
    return [Beat.hear(end, began_ns) for end in ends]


def gaps(lab: Lab, number: signal.Signals, beats: tuple[Beat, Beat]) -> list[float]:
    """One round: the seconds by direction (`DIRECTIONS`)."""
    first, second = beats
    found = restart(lab, number, [first.far, first.near])
    for beat in beats:
        beat.near_is_to("mute")
    found.append(max(restart(lab, number, [first.near, second.near])))
    for beat in beats:
        beat.near_is_to("speak")
    return found


def measure(lab: Lab, path: RestartPath, rounds: int, number: signal.Signals, prefixes: int) -> list[list[float]]:
    """All rounds of one path."""
    with ExitStack() as stack:
        configuration = path.prepare(lab, stack)
        lab.configure(CONFIGURATION if configuration is None else configuration, prefix_list(prefixes))
        lab.start_gateway()
        stack.callback(lab.remove_gateway)
        with conversations(lab, path) as beats:
            return [gaps(lab, number, beats) for _ in range(rounds)]


def main(words: list[str]) -> int:
    """Print the medians, with the least and the most."""
    parser = argparse.ArgumentParser(prog="python -m trials.bench.restart", description="the gap of a restart")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--signal", choices=["KILL", "TERM"], default="KILL")
    parser.add_argument("--prefixes", type=int, default=4600)
    chosen = parser.parse_args(words)
    number = signal.Signals[f"SIG{chosen.signal}"]
    with topology() as lab:
        for path in PATHS:
            found = measure(lab, path, chosen.rounds, number, chosen.prefixes)
            print(f"SIG{chosen.signal} and start, {path.name}: seconds until something passes")
            for direction, values in zip(DIRECTIONS, zip(*found, strict=True), strict=True):
                middle = statistics.median(values)
                print(f"  {direction:26} {middle:6.3f} [{min(values):.3f}-{max(values):.3f}]", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
