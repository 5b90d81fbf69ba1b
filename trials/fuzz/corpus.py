"""Keeps of a target's inputs the shortest that together reach all code that is reached.

    python -m trials.fuzz.corpus --target NAME --minutes 5 [--most 60]

The command fuzzes a target from the inputs that are kept. It throws out each input that reaches nothing new
(libFuzzer's merge), and writes the shortest `--most` back to `tests/corpus/NAME/reached.txt` (`trials.fuzz.kept`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import textwrap
from pathlib import Path

from trials.fuzz import instrumented
from trials.fuzz import run as fuzz
from trials.fuzz.kept import FOLDER, entries, read, write
from trials.fuzz.targets.all import targets

LONGEST_KEPT_BYTES = 2048


def main() -> int:
    """Fuzz, merge, write."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="trials.fuzz.corpus", description=textwrap.shorten(__doc__, 120))
    parser.add_argument("--target", choices=list(targets()), required=True)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--most", type=int, default=60)
    options = parser.parse_args()
    packages = instrumented.build(quick=False)
    name = options.target
    with tempfile.TemporaryDirectory() as found, tempfile.TemporaryDirectory() as merged:
        done = fuzz.guide([name], options.minutes * 60, packages, Path(found), entries(name))
        print(f"{name}: {done.inputs} inputs, {done.edges_before} edges before, {done.edges} then")
        fuzz.guide([name], options.minutes * 60, packages, Path(merged), (), ["-merge=1", found])
        kept = [path.read_bytes() for path in Path(merged).iterdir()]
    faults = set(read(FOLDER / name / "faults.txt"))
    short = sorted((one for one in kept if 0 < len(one) <= LONGEST_KEPT_BYTES and one not in faults), key=len)
    write(FOLDER / name / "reached.txt", short[: options.most])
    print(f"{len(kept)} inputs reach all of it, {min(len(short), options.most)} are kept")
    return 0


if __name__ == "__main__":
    sys.exit(main())
