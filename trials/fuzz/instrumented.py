"""The compiled part once more, in a folder apart: with AddressSanitizer, UBSan and counted edges.

    python -m trials.fuzz.instrumented [--quick]

gcc alone is needed. The sanitizers' run-time library is the one that atheris brings with libFuzzer in it
(`asan_with_fuzzer.so`), preloaded; the modules are linked without one. `trials/fuzz/coverage.c` joins gcc's counting to
libFuzzer's. Why so and not clang or AFL++: docs/decisions/0028-guided-fuzzing.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_COVERAGE = "-fsanitize-coverage=trace-pc,trace-cmp"
FLAGS = {
    "whole": "-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined " + _COVERAGE,
    "quick": "-O0 -g0 -fsanitize=address " + _COVERAGE,  # a third of the time to build
}
# A leak of one input cannot be told from what the interpreter keeps; memory is bounded by -rss_limit_mb.
ASAN_OPTIONS = (
    "detect_leaks=0:detect_odr_violation=0:quarantine_size_mb=16:malloc_context_size=2:allocator_may_return_null=1"
)
UBSAN_OPTIONS = "halt_on_error=1:print_stacktrace=1"


def runtime() -> Path | None:
    """The sanitizers' library with libFuzzer in it; None where atheris is not installed."""
    found = find_spec("atheris")
    if found is None or found.origin is None:
        return None
    library = Path(found.origin).parents[1] / "asan_with_fuzzer.so"
    return library if library.exists() else None


def build(*, quick: bool) -> Path:
    """The folder with all packages and the instrumented modules, built where a source is newer.

    `CalledProcessError` or `FileNotFoundError` where there is no gcc, or no header of Python.
    """
    place = ROOT / "build" / ("instrumented-quick" if quick else "instrumented")
    place.mkdir(parents=True, exist_ok=True)
    joint = place / "coverage.o"
    source = ROOT / "trials" / "fuzz" / "coverage.c"
    subprocess.run(["gcc", "-O2", "-fPIC", "-c", str(source), "-o", str(joint)], check=True, capture_output=True)
    flags = FLAGS["quick" if quick else "whole"]
    # In CC and not in CFLAGS: those go to the linker as well, which would bind the modules to gcc's own run time.
    compiler = {"CC": f"gcc {flags}", "LDSHARED": "gcc -shared", "LDFLAGS": str(joint), "PORTABLE_WHEEL": "1"}
    subprocess.run(
        [
            *(sys.executable, "setup.py", "-q", "build", f"--build-lib={place / 'lib'}"),
            *(f"--build-temp={place / 'temp'}", f"--parallel={os.cpu_count() or 1}"),
        ],
        check=True,
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, **compiler},
    )
    return place / "lib"


def environment(library: Path, packages: Path | None) -> dict[str, str]:
    """Variables of a process that runs on the instrumented modules (`packages`), or on those of the tree."""
    roots = [ROOT] if packages is None else [packages, ROOT]  # `trials` is in no package, so it is the tree's
    path = os.pathsep.join(map(str, roots))
    found = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    if packages is not None:
        found |= {"LD_PRELOAD": str(library), "ASAN_OPTIONS": ASAN_OPTIONS, "UBSAN_OPTIONS": UBSAN_OPTIONS}
        found["PYTHONMALLOC"] = "malloc"  # or the interpreter's own arenas would hide what runs over an object's end
    return found


def main() -> int:
    """Build it and say where."""
    parser = argparse.ArgumentParser(prog="trials.fuzz.instrumented", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less optimised, AddressSanitizer alone")
    try:
        print(build(quick=parser.parse_args().quick))
    except subprocess.CalledProcessError as error:
        print(error.stderr.decode(errors="replace"), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
