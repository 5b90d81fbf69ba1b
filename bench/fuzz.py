"""Hostile input for minutes, with what must hold checked after each: `frames` into a gateway, `tunnel` into a tunnel,
`relay` into a relay and the nodes behind it, `flow` into flow tables and into a gateway that repeats its decisions.

    python -m bench.fuzz --minutes 1 [--target frames|tunnel|relay|flow] [--seed N] [--captures DIR]

The targets take turns of some seconds, each with a fresh seed and a fresh state. A failure prints target and seed, the
number of the input and the input itself, and exits 1: the same target and seed give the same inputs.

To add a target: a module with `run(seconds, seed, ...) -> number of inputs` that raises `bench.hostile.Broken`, and a
line in `main`. To add a message of the tunnel: see `bench.fuzz_tunnel`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from itertools import cycle
from pathlib import Path

from bench import fuzz_flow, fuzz_frames, fuzz_relay, fuzz_tunnel
from bench.hostile import Broken

TURN_S = 10.0

Target = Callable[[float, int], int]


def in_turns(targets: Mapping[str, Target], seconds: float, seed: int) -> dict[str, int]:
    """Run the targets one after the other until the time is over, each once at least; inputs by target."""
    end = time.monotonic() + seconds
    inputs = dict.fromkeys(targets, 0)
    for turn, (name, target) in enumerate(cycle(targets.items())):
        left_s = end - time.monotonic()
        if turn >= len(targets) and left_s <= 0:
            break
        try:
            inputs[name] += target(min(TURN_S, max(left_s, 0.0)), seed + turn)
        except Broken as error:
            print(f"repeat with: --target {name} --seed {seed + turn}\n{error}", file=sys.stderr)
            raise
    return inputs


def _shared() -> Path:
    """The folder that the tests read captures from, too (`tests/conftest.py`)."""
    return Path(os.environ.get("TAPBRIDGE_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def main() -> int:
    """The command line; exit code 1 where something that must hold did not."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="bench.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--target", choices=("frames", "tunnel", "relay", "flow"), default=None, help="this one alone")
    parser.add_argument("--captures", type=Path, default=_shared() / "pcaps")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int(time.time())
    seeds = fuzz_frames.captured(options.captures) if options.captures.is_dir() else []
    targets: dict[str, Target] = {
        "frames": partial(fuzz_frames.run, seeds=seeds),
        "tunnel": fuzz_tunnel.run,
        "relay": fuzz_relay.run,
        "flow": fuzz_flow.run,
    }
    if options.target is not None:
        targets = {options.target: targets[options.target]}
    print(f"fuzzing for {options.minutes} min with seed {seed}, {len(seeds)} captured packets as seeds")
    try:
        inputs = in_turns(targets, options.minutes * 60, seed)
    except Broken:
        traceback.print_exc()
        return 1
    print(", ".join(f"{name}: {number} inputs" for name, number in inputs.items()) + "; nothing broken")
    return 0


if __name__ == "__main__":
    sys.exit(main())
