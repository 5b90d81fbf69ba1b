"""Everything that one run of the benchmark gave, and its JSON document."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any, NamedTuple

from trials.bench.figure import Figure, summary
from trials.bench.turn import MEASURES, Sample, Turn


class Taker(NamedTuple):
    """A contestant in this run: present with what it is, or absent with the reason."""

    name: str
    path: str
    version: str
    note: str
    absent: str | None


class Results(NamedTuple):
    """`turns`: (round, turn) in the order in which they were taken. `not_measured`: what is missing, each with why."""

    rounds: int
    seconds: int
    takers: list[Taker]
    turns: list[tuple[int, Turn]]
    figures: list[Figure]
    not_measured: list[str]
    tools: str

    def figure(self, path: str, contestant: str, key: str) -> Figure | None:
        """One of them."""
        for figure in self.figures:
            if (figure.path, figure.contestant, figure.key) == (path, contestant, key):
                return figure
        return None

    @property
    def beside_cores(self) -> tuple[float, float]:
        """Cores that others used before the turns: the middle and the most."""
        seen = sorted(turn.beside.cores for _, turn in self.turns)
        return (seen[len(seen) // 2], seen[-1]) if seen else (0.0, 0.0)


def figures_of(turns: Sequence[tuple[int, Turn]]) -> list[Figure]:
    """One figure for each contestant, path and measure: all rounds that have a value."""
    samples: dict[tuple[str, str, str], dict[int, Sample]] = {}
    cores: dict[tuple[str, str], float] = {}
    for number, turn in turns:
        who = turn.path, turn.contestant
        cores[who] = max(cores.get(who, 0.0), turn.beside.cores)
        for key, sample in turn.samples.items():
            samples.setdefault((*who, key), {})[number] = sample
    found = []
    for (path, contestant, key), by_round in samples.items():
        measure = MEASURES[key]
        losses = [sample.loss for sample in by_round.values() if sample.loss is not None]
        figure = summary(measure.name, measure.unit, [sample.value for sample in by_round.values()])
        found.append(
            figure._replace(
                key=key,
                path=path,
                contestant=contestant,
                frames=measure.frames,
                direction=measure.direction,
                loss_percent=100 * max(losses) if losses else None,
                beside_cores=cores[path, contestant],
                remark=", ".join(sorted({sample.remark for sample in by_round.values() if sample.remark})),
                rounds=tuple(by_round),
            )
        )
    return found


def machine() -> dict[str, Any]:
    """The machine of the run, in words."""
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_name(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return ""


def document(results: Results, goals: Sequence[Any], not_measured: Sequence[str]) -> dict[str, Any]:
    """The JSON document. Keys are only ever added."""
    return {
        "version": 1,
        "rounds": results.rounds,
        "seconds": results.seconds,
        "machine": machine(),
        "tools": results.tools,
        "contestants": [taker._asdict() for taker in results.takers],
        "figures": [figure._asdict() for figure in results.figures],
        "goals": [goal._asdict() for goal in goals],
        "turns": [
            {
                "round": number,
                "path": turn.path,
                "contestant": turn.contestant,
                "beside": turn.beside._asdict(),
                "stolen_s": turn.stolen_s,
                "says": turn.says,
                "missing": turn.missing,
            }
            for number, turn in results.turns
        ],
        "not_measured": list(not_measured),
    }
