"""Hostile input for minutes, with what must hold checked after each.

    python -m trials.fuzz --minutes 1 [--target NAME] [--how blind|guided|both] [--seed N] [--captures DIR]

| target | what comes |
|---|---|
| `frames` | frames into every port of gateways of several kinds (`trials.fuzz.targets.frames`) |
| `flow` | the same calls to both flow tables, the same frames to a walk and to a fast path |
| `bursts`, `lanes`, `pieces` | what compiled code reads: frames of devices, datagrams of peers, super-frames |
| `tunnel`, `relay` | messages of WireGuard in every state, envelopes sealed and spoiled |
| `dhcp` | answers of servers, time and the operator, in any order, into the DHCP client |
| `config`, `pcap`, `texts` | configuration files, captures, what people type and other programs wrote |
| `control` | bytes and requests on the control socket and the metrics page |

Half of the time goes to *blind* turns in this process: a seed gives the same inputs again, and a failure prints it. The
other half is *guided* (`trials.fuzz.guided`): libFuzzer changes what reached something new, and the compiled part runs
with AddressSanitizer. That takes atheris and gcc; where they are missing it says so and all of the time is blind. The
input that broke something is printed in base64: put it into `tests/corpus/TARGET/faults.txt`, and the suite replays it.

To add a target: a module with a `TARGET` (`trials.fuzz.hostile.Target`), and a line in `trials.fuzz.targets.all`.
"""

from __future__ import annotations

import argparse
import base64
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from trials.fuzz import hostile, instrumented, kept
from trials.fuzz.hostile import Broken, Target
from trials.fuzz.targets import frames as fuzz_frames
from trials.fuzz.targets.all import targets

TURN_S = 10.0
SHORTEST_GUIDED_S = 20.0
"""Below this a target shares a process with the others: each start takes seconds."""
SPARE_S = 600.0
"""How much longer than it was told a guided process may take before it is ended: to load, to replay its corpus."""

TargetTurn = Callable[[float, int], int]


def in_turns(turns: Mapping[str, TargetTurn], seconds: float, seed: int) -> dict[str, int]:
    """Run the targets one after the other until the time is over, each once at least; inputs by target."""
    end = time.monotonic() + seconds
    inputs = dict.fromkeys(turns, 0)
    each_s = min(TURN_S, seconds / len(turns))
    for turn, (name, target) in enumerate(cycle(turns.items())):
        left_s = end - time.monotonic()
        if turn >= len(turns) and left_s <= 0:
            break
        try:
            inputs[name] += target(min(each_s, max(left_s, 0.0)), seed + turn)
        except Broken as error:
            print(f"repeat with: --how blind --target {name} --seed {seed + turn}\n{error}", file=sys.stderr)
            raise
    return inputs


class Guided(NamedTuple):
    """The yield of a guided run: inputs tried, edges met by its corpus and at the end."""

    inputs: int
    edges_before: int
    edges: int


def guide(
    names: Sequence[str],
    seconds: float,
    packages: Path | None,
    found: Path,
    entries: Sequence[bytes],
    flags: Sequence[str] = (),
) -> Guided:
    """One guided process on some targets; what it found new is in `found`. `Broken` with what it said where an input
    broke something. `packages`: instrumented ones, None for those of the tree."""
    library = instrumented.runtime()
    assert library is not None, "without atheris nothing is guided"
    with tempfile.TemporaryDirectory() as place:
        for at, entry in enumerate(entries):
            (found / f"kept{at}").write_bytes(entry)
        command = [sys.executable, "-P", "-m", "trials.fuzz.guided", f"--target={','.join(names)}", f"--corpus={found}"]
        command += [f"--found={place}", f"--seconds={max(round(seconds), 1)}", *flags]
        log = Path(place) / "log"
        with log.open("wb") as file:
            done = subprocess.run(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=instrumented.environment(library, packages),
                timeout=seconds + SPARE_S,
                check=False,
            )
        said = log.read_text(errors="replace")
        broken = [path for path in Path(place).iterdir() if path.name.startswith(("crash-", "timeout-", "oom-"))]
        if done.returncode or broken:
            lines = [line for line in said.splitlines() if not line.startswith(("INFO: Instr", "#"))]
            inputs = [f"{path.name}: {base64.b64encode(path.read_bytes()).decode()}" for path in broken]
            raise Broken("\n".join([f"guided on {','.join(names)}:", *lines[-60:], *inputs]))
    edges = [int(number) for number in re.findall(r"cov: (\d+)", said)]
    counted = re.search(r"number_of_executed_units: (\d+)", said)
    return Guided(int(counted[1]) if counted else 0, edges[0] if edges else 0, edges[-1] if edges else 0)


def guided_turns(chosen: Mapping[str, Target], seconds: float, *, quick: bool) -> dict[str, Guided]:
    """Every target its share, or all together where the shares are too short."""
    packages = None
    print(
        "building the compiled part with sanitizers, which takes minutes where it is new ...",
        file=sys.stderr,
        flush=True,
    )
    try:
        packages = instrumented.build(quick=quick)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        if os.environ.get("CI") == "true" and not os.environ.get("WITHOUT_COMPILER"):
            raise
        print(f"nothing is instrumented, the compiled part runs without AddressSanitizer: {error}", file=sys.stderr)
    done: dict[str, Guided] = {}
    share_s = seconds / len(chosen)
    if share_s >= SHORTEST_GUIDED_S or len(chosen) == 1:
        for name in chosen:
            with tempfile.TemporaryDirectory() as found:
                done[name] = guide([name], share_s, packages, Path(found), kept.entries(name))
    else:
        inputs = [bytes([at]) + entry for at, name in enumerate(chosen) for entry in kept.entries(name)]
        with tempfile.TemporaryDirectory() as found:
            done["all together"] = guide(list(chosen), seconds, packages, Path(found), inputs)
    return done


def _shared() -> Path:
    """The folder that the tests read captures from, too (`tests/conftest.py`)."""
    return Path(os.environ.get("TAPBRIDGE_SHARED", Path(__file__).resolve().parents[3] / "shared"))


def main() -> int:
    """The command line; exit code 1 where something that must hold did not."""
    assert __doc__ is not None
    names = list(targets())
    parser = argparse.ArgumentParser(prog="trials.fuzz.run", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--target", choices=names, default=None, help="this one alone")
    parser.add_argument("--how", choices=("both", "blind", "guided"), default="both")
    parser.add_argument("--quick", action="store_true", help="instrument less: builds in a third of the time")
    parser.add_argument("--captures", type=Path, default=_shared() / "pcaps")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int(time.time())
    captures = fuzz_frames.captured(options.captures) if options.captures.is_dir() else []
    chosen = {name: target for name, target in targets(captures).items() if options.target in (None, name)}
    how = options.how
    if how != "blind" and instrumented.runtime() is None:
        print("atheris is not installed (pip install '.[fuzz]'): nothing is guided", file=sys.stderr)
        if how == "guided":
            return 1
        how = "blind"
    seconds = options.minutes * 60 / (2 if how == "both" else 1)
    logging.getLogger("bridge").setLevel(logging.CRITICAL)  # it tells of all that is damaged
    print(f"fuzzing for {options.minutes} min, {how}, with seed {seed}, {len(captures)} captured packets as seeds")
    try:
        if how != "guided":
            turns = {name: partial(hostile.run, target) for name, target in chosen.items()}
            inputs = in_turns(turns, seconds, seed)
            print("blind: " + ", ".join(f"{name}: {number} inputs" for name, number in inputs.items()))
        if how != "blind":
            for name, did in guided_turns(chosen, seconds, quick=options.quick).items():
                print(f"guided: {name}: {did.inputs} inputs, {did.edges_before} edges by the corpus, {did.edges} then")
    except Broken:
        traceback.print_exc()
        return 1
    print("nothing broken")
    return 0
