"""New TCP connections a second: `python -m trials.connections [--seconds N] [--callers N] [--only tap1|tunnel] [-j]`.

Callers on a LAN host connect, exchange 16 bytes each way and close, one connection after the other, through tap1 and
then through the tunnel (goals P5, P5a and P10). Exit code 0; 1 where an end failed; 2 where this machine cannot have
the lab, or has no gcc.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from lab.private import Impossible
from trials.bench.contestants import FAILURES
from trials.connections.ends import NoCompiler
from trials.connections.measure import CALLERS, PATHS, Measured, measured

SECONDS = 8.0


def text(one: Measured) -> str:
    """Four lines for people."""
    drops = ", ".join(f"{reason} {count:,}" for reason, count in one.drops.items())
    cores = ", ".join(f"{name} {used:.2f}" for name, used in one.cores.items() if used)
    far = f", of the tunnel's other end {one.far_cpu_us:.0f} us" if one.far_cpu_us else ""
    return (
        f"{one.path}: {one.rate:,.0f} new TCP connections a second ({one.done:,} in {one.seconds:.1f} s, "
        f"{one.failed:,} failed; {one.callers} callers, 16 bytes each way)\n"
        f"  CPU of the gateway {one.cpu_us:.0f} us a connection{far}\n"
        f"  connect: median {one.connect_p50_ms:.2f} ms, p99 {one.connect_p99_ms:.2f} ms, "
        f"longest {one.connect_longest_ms:.0f} ms; SYNs sent again {one.syns_lost:,}, {drops}\n"
        f"  cores in use: {cores}; bound by: {one.bound_by}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="trials.connections", description="new TCP connections through the gateway")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of each path (default {SECONDS:g})")
    parser.add_argument("--callers", type=int, default=CALLERS, help=f"at once (default {CALLERS})")
    parser.add_argument("--only", choices=tuple(PATHS), help="one path alone")
    parser.add_argument("-j", "--json", action="store_true", help="a JSON object a line")
    options = parser.parse_args(arguments)
    code = 0
    for path in PATHS:
        if options.only not in (None, path):
            continue
        try:
            one = measured(path, options.seconds, options.callers)
        except (Impossible, NoCompiler) as reason:
            print(f"not measured: {reason}", file=sys.stderr)
            return 2
        except FAILURES as failure:
            print(f"{path}: {failure}", file=sys.stderr)
            code = 1
            continue
        print(json.dumps(asdict(one)) if options.json else text(one), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
