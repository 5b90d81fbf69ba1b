"""Measure this version: `python -m trials.bench [-j] [--only PART] [--peers NAMES] [--rounds N] [--seconds
N]`.

Four parts, all of them unless `--only` names some: `offload` and `tunnel` in the lab, ours and others in turns
(`trials.bench.contestants`, `trials.bench.tunnels`, `trials.bench.turn`); `gateway` in the lab, ours alone
(`trials.bench.gateway_cases`); `rooms` in this process (`trials.bench.rooms`). Last come the goals as this run has
them, and what was not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence

from lab.private import Impossible
from lab.topology import topology
from trials.bench import flowtable, gateway_cases, page, report, rooms, usage
from trials.bench.contestants import CONTESTANTS, OFFLOAD, OURS, PLAIN, TUNNEL, Contestant
from trials.bench.figure import Figure
from trials.bench.goals import judged, reasons
from trials.bench.results import Results, Taker, document, figures_of
from trials.bench.tunnels import TUNNELS
from trials.bench.turn import SETTLE_S, Turn, take_turn

ALL = (*CONTESTANTS, *TUNNELS)
PARTS = (OFFLOAD, TUNNEL, gateway_cases.GATEWAY, rooms.ROOMS)
NAMES = tuple(dict.fromkeys(contestant.name for contestant in ALL))
INTERRUPTED = 130


def chosen(names: Sequence[str], parts: Sequence[str]) -> list[Contestant]:
    """The contestants that take part: all where `names` is empty. Both of ours always do, unless one of them is
    named."""
    wanted = set(names or NAMES)
    if not wanted & {OURS, PLAIN}:
        wanted |= {OURS, PLAIN}
    return [contestant for contestant in ALL if contestant.name in wanted and contestant.path in parts]


def in_turns(present: Sequence[Contestant], rounds: int) -> list[tuple[int, Contestant]]:
    """(round, contestant) in order. Each second round goes backwards, so that nobody has the machine's drift for it."""
    found = []
    for number in range(1, rounds + 1):
        found += [(number, contestant) for contestant in (present if number % 2 else present[::-1])]
    return found


def run(parts: Sequence[str], names: Sequence[str], rounds: int, seconds: int) -> Results:
    """Measure."""
    began = time.monotonic()
    takers = chosen(names, parts)
    absent = {(taker.path, taker.name): taker.absent() for taker in takers}
    missing: list[str] = []
    turns: list[tuple[int, Turn]] = []
    needs_lab = takers or gateway_cases.GATEWAY in parts
    try:
        if needs_lab:
            with topology():  # whether there can be a lab at all
                pass
    except Impossible as reason:
        for taker in takers:
            absent[taker.path, taker.name] = f"no lab here: {reason}"
        missing += [f"no lab here: {reason}"] * rounds
        parts = [part for part in parts if part != gateway_cases.GATEWAY]
    figures: list[Figure] = []
    if rooms.ROOMS in parts:
        _say(f"[{time.monotonic() - began:4.0f} s] rooms, in this process")
        if not flowtable.is_there():
            missing += ["rooms, look-ups in the flow table: it is not compiled here (flow.fast)"] * rounds
        cores = usage.beside(SETTLE_S).cores
        figures += [figure._replace(beside_cores=cores) for figure in rooms.figures(rounds)]
    if gateway_cases.GATEWAY in parts:
        _say(f"[{time.monotonic() - began:4.0f} s] our gateway alone")
        cores = usage.beside(SETTLE_S).cores
        cases = gateway_cases.cases(rounds)
        figures += [figure._replace(beside_cores=cores) for figure in cases.figures]
        missing += [f"our gateway, {what}: {_first_line(why)}" for what, why in cases.missing.items()]
    present = [taker for taker in takers if not absent[taker.path, taker.name]]
    order = in_turns(present, rounds)
    for at, (number, taker) in enumerate(order, 1):
        passed_s = time.monotonic() - began
        _say(f"[{passed_s:4.0f} s] turn {at} of {len(order)}, round {number}: {taker.path}, {taker.name}")
        turn = take_turn(taker, seconds)
        turns.append((number, turn))
        missing += [f"{taker.path}, {taker.name}, {what}: {_first_line(why)}" for what, why in turn.missing.items()]
        if "start" in turn.missing:
            _say(turn.missing["start"])
    figures = figures_of(turns) + figures
    _say(f"[{time.monotonic() - began:4.0f} s] done")
    told = [
        Taker(taker.name, taker.path, taker.told_version(), taker.note, absent[taker.path, taker.name])
        for taker in takers
    ]
    bulk = "iperf3" if shutil.which("iperf3") else "our own sender (iperf3 is not installed)"
    missing = [*_counted(missing, rounds), *(f"part `{part}`: not asked for" for part in PARTS if part not in parts)]
    return Results(rounds, seconds, told, turns, figures, missing, f"TCP by {bulk}.")


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "no reason was given")


def _counted(reasons: Sequence[str], rounds: int) -> list[str]:
    """Each once, with how often where that was not in every round."""
    return [
        reason if count == rounds else f"{reason} (in {count} of {rounds} rounds)"
        for reason, count in Counter(reasons).items()
    ]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench", description="what this version is measured by")
    parser.add_argument("-j", "--json", action="store_true", help="one JSON document instead of tables")
    parser.add_argument("--only", action="append", choices=PARTS, help="a part; may be given again (default: all)")
    parser.add_argument(
        "--peers", default="", metavar="NAMES", help=f"who takes part beside ours, of: {' '.join(NAMES)} (default: all)"
    )
    parser.add_argument("--rounds", type=_positive, default=3, metavar="N", help="turns of each (default 3)")
    parser.add_argument("--seconds", type=_positive, default=2, metavar="N", help="of each TCP load (default 2)")
    parser.add_argument("--write-docs", action="store_true", help="write docs/performance.md and its picture")
    options = parser.parse_args(arguments)
    names = options.peers.replace(",", " ").split()
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"nobody here is called {' or '.join(unknown)}; there are {' '.join(NAMES)}")
    try:
        results = run(options.only or PARTS, names, options.rounds, options.seconds)
    except KeyboardInterrupt:
        _say("interrupted; everything is taken down")
        return INTERRUPTED
    goals = judged(results)
    if options.json:
        print(json.dumps(document(results, goals, reasons(results, goals)), indent=1))
    else:
        report.show(results, goals)
    if options.write_docs:
        for path in page.write(results, goals):
            _say(f"written: {os.path.relpath(path)}")
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends us: everything is taken down
    sys.exit(main())
