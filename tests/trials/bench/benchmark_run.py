"""A run of the benchmark as it could have been, without a lab: two rounds, ours and three others."""

from __future__ import annotations

from trials.bench.contestants import KERNEL, OFFLOAD, OURS, TUNNEL
from trials.bench.figure import Figure, summary
from trials.bench.gateway_cases import FEW_FLOWS, GATEWAY, LIVE_FLOWS
from trials.bench.results import Results, Taker, figures_of
from trials.bench.turn import MEASURES, Sample, Turn
from trials.bench.usage import Beside

FACTORS = {OURS: 1.0, KERNEL: 2.0, "tinc": 0.25}
VALUE = 1000.0
QUIET = Beside(0.1, 0.0, ["cc1 0.10"])


def turn(name: str, path: str, number: int) -> tuple[int, Turn]:
    """One in which every measure has the same value; in the second round the whole machine is half as fast."""
    value = VALUE * FACTORS[name] / number
    samples = {key: Sample(value, 0.002 * number) for key in MEASURES}
    return number, Turn(name, path, samples, {}, QUIET, 0.0, "forwarding compiled" if name == OURS else "")


def own(key: str, *values: float) -> Figure:
    return summary(f"of ours: {key}", "x", values)._replace(key=key, path=GATEWAY, contestant=OURS)


def results() -> Results:
    who = [(OURS, OFFLOAD), (KERNEL, OFFLOAD), (OURS, TUNNEL), ("tinc", TUNNEL)]
    turns = [turn(name, path, number) for number in (1, 2) for name, path in who]
    takers = [Taker(name, path, f"{name} 1.0", "its note | with a bar", None) for name, path in who]
    takers.insert(2, Taker("pasta", OFFLOAD, "", "", "pasta not installed <yet>"))
    figures = figures_of(turns)
    figures += [
        own(f"packet_us_{FEW_FLOWS}", 4.0, 5.0),
        own(f"packet_us_{LIVE_FLOWS}", 5.0, 5.0),
        own("reload_lost", 0, 0),
    ]
    return Results(2, 1, takers, turns, figures, ["part `rooms`: not asked for"], "TCP by iperf3.")
