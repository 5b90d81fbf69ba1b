"""The inputs that are kept: what guided runs found worth keeping, and what once broke something.

    python -m trials.fuzz.corpus --target NAME --minutes 5 [--most 60]

fuzzes a target from what is kept, throws out what reaches nothing that others do not reach as well (libFuzzer's merge),
and writes the shortest `--most` back to `tests/corpus/NAME/reached.txt`. `faults.txt` beside it is written by
hand: an input that broke something once, with a comment that says what.

Both are text: an input a line in base64, `#` begins a comment. `tests/trials/fuzz/test_fuzzing.py` replays them all.
"""

from __future__ import annotations

import argparse
import base64
import sys
import tempfile
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "corpus"
LONGEST_KEPT_BYTES = 2048


def read(path: Path) -> list[bytes]:
    """The inputs of one file; none where there is no file. `ValueError` for a line that is no base64."""
    if not path.exists():
        return []
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [base64.b64decode(line, validate=True) for line in lines if line]


def entries(target: str, folder: Path = FOLDER) -> list[bytes]:
    """All inputs that are kept for a target."""
    return [entry for name in ("faults.txt", "reached.txt") for entry in read(folder / target / name)]


def write(path: Path, found: list[bytes]) -> None:
    """Inputs as lines, the shortest first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [base64.b64encode(entry).decode() for entry in sorted(set(found), key=lambda entry: (len(entry), entry))]
    path.write_text(
        "# Made by `python -m trials.fuzz.corpus`, see README.md.\n" + "".join(f"{line}\n" for line in lines)
    )


def main() -> int:
    """Fuzz, merge, write."""
    from trials.fuzz import instrumented  # noqa: PLC0415 - which read this module
    from trials.fuzz import run as fuzz  # noqa: PLC0415 - which read this module
    from trials.fuzz.targets.all import targets  # noqa: PLC0415

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
