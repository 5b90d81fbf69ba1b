"""The process of a guided run: libFuzzer in this interpreter (atheris), one target, until the time is over.

    python -m trials.fuzz.guided --target frames,flow --corpus DIR --found DIR --seconds N [--blind] [libFuzzer's flags]

Started by `trials.fuzz`, which sets the environment (`trials.fuzz.instrumented.environment`) and reads what libFuzzer
says. Edges of every module below the floor `trials` are counted, those of compiled modules too where they are
instrumented. With --blind inputs are made without regard to what earlier ones reached, and the edges counted all the
same: what guidance is worth is the difference.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

if TYPE_CHECKING:
    from trials.fuzz.hostile import Target

ROOMS = ["alias", "arp", "bridge", "bridgectl", "dhcp", "flow", "icmp", "route", "tunnel", "wire"]
MOST_INPUTS = 400
"""Of one episode: a byte string may be spent slowly."""
LONGEST_CHOICES_BYTES, LONGEST_RAW_BYTES = 600, 4096


def _target(names: list[str]) -> Target:
    with atheris.instrument_imports(include=ROOMS, enable_loader_override=False):
        from trials.fuzz.targets.all import targets, together  # noqa: PLC0415 - only what is imported here is counted
    found = targets()
    chosen = [found[name] for name in names]
    return chosen[0] if len(chosen) == 1 else together(chosen)


def _dictionary(words: list[bytes], place: Path) -> str:
    """libFuzzer's form: a quoted word a line."""
    lines = ('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"' for word in words if word)
    path = place / "words"
    path.write_text("\n".join(lines) + "\n")
    return f"-dict={path}"


def main() -> None:
    """See the module's docstring; it ends as libFuzzer ends it."""
    parser = argparse.ArgumentParser(prog="trials.fuzz.guided")
    parser.add_argument("--target", required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--found", type=Path, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--blind", action="store_true")
    options, flags = parser.parse_known_args()
    logging.getLogger("bridge").setLevel(logging.CRITICAL)  # it tells of all that is damaged
    target = _target(options.target.split(","))
    from trials.fuzz.hostile import replay, reworded  # noqa: PLC0415 - behind the rooms, whose imports are instrumented

    samples = list(target.samples()) or [random.Random(at).randbytes(LONGEST_CHOICES_BYTES // 2) for at in range(8)]
    if not any(options.corpus.iterdir()):
        for at, sample in enumerate(samples):
            (options.corpus / f"sample{at}").write_bytes(sample)
    longest = LONGEST_RAW_BYTES if target.is_raw else LONGEST_CHOICES_BYTES

    def one(data: bytes) -> None:
        try:
            replay(target, data, MOST_INPUTS)
        except Exception:
            traceback.print_exc()
            raise

    def anew(_data: bytes, size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if target.is_raw:
            return reworded(rng.choice(samples), target.words, rng)[:size]
        return rng.randbytes(rng.randrange(min(size, longest)))

    # libFuzzer's merge starts itself again through a shell, by its first argument.
    again = f"--target={options.target} --corpus={options.corpus} --found={options.found} --seconds={options.seconds}"
    arguments = [
        f"{sys.executable} -P -m trials.fuzz.guided {again}",
        str(options.corpus),
        f"-max_total_time={options.seconds}",
        f"-artifact_prefix={options.found}/",
        f"-max_len={max([longest, *map(len, samples)])}",
        "-len_control=0",
        "-timeout=120",
        "-rss_limit_mb=3000",
        "-print_final_stats=1",
        "-reload=0",
        *flags,
    ]
    if target.words:
        arguments.append(_dictionary(list(target.words), options.found))
    if options.blind:
        atheris.Setup(arguments, one, custom_mutator=anew)
    else:
        atheris.Setup(arguments, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
