"""`python -m trials.faults [--only NAME ...] [--short] [-j] [--write-docs]`: play the cases and say what each cost.

Exit code 0 where all that must hold did, else 1; 2 where this machine cannot have the lab.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from bridge.control.client import ControlError
from lab.private import Impossible
from lab.process import CommandFailed
from lab.topology import topology
from trials.faults.all import CASES
from trials.faults.case import Case, CaseReport
from trials.faults.page import page
from trials.faults.play import play
from trials.faults.report import text
from trials.faults.stage import FaultStage

_PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "faults.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="trials.faults", description="faults under traffic, and what was lost")
    parser.add_argument("--only", action="append", metavar="NAME", help="a case, or the beginning of some names")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--short", action="store_true", help="as short as the tests have them")
    parser.add_argument("-j", "--json", action="store_true", help="a JSON object a line")
    parser.add_argument("--write-docs", action="store_true", help=f"write {_PAGE.name}")
    options = parser.parse_args(arguments)
    chosen = [case for case in CASES if not options.only or case.name.startswith(tuple(options.only))]
    if not chosen:
        parser.error("there is no such case; --list names them")
    if options.list:
        for case in chosen:
            print(f"{case.name:24} {case.what}")
        return 0
    try:
        reports, failures = _play(chosen, is_short=options.short, is_json=options.json)
    except Impossible as reason:
        print(f"no lab here: {reason}", file=sys.stderr)
        return 2
    if options.write_docs:
        _PAGE.write_text(page(reports))
    return 1 if failures or any(report.faults for report in reports) else 0


def _play(chosen: Sequence[Case], *, is_short: bool, is_json: bool) -> tuple[list[CaseReport], int]:
    reports, failures = [], 0
    with topology() as lab, ExitStack() as stack:
        stage = FaultStage(lab, stack)
        for case in chosen:
            try:
                report = play(stage, case, case.short_s if is_short else case.seconds)
            except (CommandFailed, ControlError, Impossible) as failure:
                print(f"{case.name}: {failure}", file=sys.stderr, flush=True)
                failures += 1
                continue
            reports.append(report)
            print(json.dumps(asdict(report)) if is_json else text(report), flush=True)
    return reports, failures


if __name__ == "__main__":
    sys.exit(main())
