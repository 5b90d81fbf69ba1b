"""`docs/performance.md` and its picture, as one run has them: `python -m trials.bench --write-docs` writes both."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from trials.bench import plot
from trials.bench.goals import Judged, reasons, summed_up
from trials.bench.report import GOAL_HEADINGS, PATHS, conditions, goal_cells, number, rows
from trials.bench.results import Results, machine

FOLDER = Path(__file__).resolve().parents[2] / "docs"
PAGE, PICTURE = "performance.md", "performance.svg"

_HEAD = """\
# Performance

<!-- Written by `python -m trials.bench --write-docs`; changes are lost. -->

`make bench` measures all of this again, in under a quarter of an hour. Every figure stands with its spread. Absolute
figures belong to one machine at one time; ratios within one run travel better, so the goals are ratios where they can
be. `scripts/bench-peers` installs the other programs from Debian's packages; `make bench PEERS="kernel tinc" ROUNDS=5`
chooses among them.

Everybody takes turns on one lab (`topology.md`, *in network namespaces*): LAN host, gateway, ISP router and exit are
namespaces with real kernel stacks on one machine, so senders and receivers compete with the gateway for its cores. In
each turn the lab is built anew, the contestant is started, measured and stopped.

"""
_METHOD = """\
## How

- TCP by iperf3 where it is installed. 64-byte UDP by our own sender and receiver, up to 64 datagrams a system call; the
  rate is searched in steps of 0.4 s, and a rate that lost 1 % or more twice is given up.
  *Bound by the sender*: nothing was lost at the highest rate that it could do. The kernel forwards on the sender's own
  core, so what it could do with a faster sender is not seen.
- New connections: several callers that connect, exchange 16 bytes and close, one after the other.
- CPU seconds are those of the contestant's processes with all threads; the kernel's are the whole machine's, with both
  ends of the load and whatever else ran. The kernel's work on other cores for a program is in nobody's figure.
- Pings are those of `ping`, with the kernel's time of arrival.
- The older design, which some goals name, is in no package: it is taken as the share of the kernel's figure that it had
  when both were measured on one machine. Of wireguard-go and tinc Debian's versions are measured, not their newest.
"""


def write(results: Results, goals: Sequence[Judged], folder: Path = FOLDER) -> list[Path]:
    """Write both files; where they are."""
    page, picture = folder / PAGE, folder / PICTURE
    page.write_text(text(results, goals))
    spread = f"Median of {results.rounds} rounds, whiskers from lowest to highest"
    caption = f"{spread}; dashed: the bound that ours is held against."
    picture.write_text(plot.svg(plot.panels(results, goals), caption))
    return [page, picture]


def text(results: Results, goals: Sequence[Judged]) -> str:
    """The page."""
    about = machine()
    when = time.strftime("%Y-%m-%d", time.gmtime())
    parts = [_HEAD]
    parts.append(
        f"This run: {when}, {about['cores']} cores ({about['cpu'] or 'unknown'}), kernel {about['kernel']}, "
        f"Python {about['python']}.\n\n![Bars of all contestants]({PICTURE})\n"
    )
    if results.turns:
        parts.append("\n" + "\n".join(f"- {line}" for line in conditions(results)) + "\n")
    parts.append(f"\n## Goals\n\n{summed_up(goals).capitalize()}.\n\n")
    parts.append(_table(GOAL_HEADINGS, [goal_cells(goal) for goal in goals]))
    for path, title in PATHS.items():
        takers, found = rows(results, path)
        if found:
            headings = ("", *(taker.name for taker in takers))
            parts.append(f"\n## {title}\n\n" + _table(headings, [[name, *cells] for name, cells in found]))
            says = {turn.contestant: turn.says for _, turn in results.turns if turn.path == path and turn.says}
            for taker in results.takers:
                if taker.path == path:
                    told = [taker.version, taker.note, says.get(taker.name, "")]
                    line = f"absent: {taker.absent}" if taker.absent else "; ".join(filter(None, told))
                    parts.append(f"\n- {taker.name}: {line}.")
            parts.append("\n")
    others = [figure for figure in results.figures if figure.path not in PATHS]
    if others:
        parts.append("\n## Our own\n\n")
        parts.append(
            _table(
                ("", "median", "lowest", "highest", "unit", "frames, direction, loss"),
                [
                    [
                        figure.name,
                        *(number(value) for value in figure[2:5]),
                        figure.unit,
                        ", ".join(
                            filter(
                                None,
                                (
                                    figure.frames,
                                    figure.direction,
                                    "" if figure.loss_percent is None else f"{figure.loss_percent:.2g} % lost",
                                    figure.remark,
                                ),
                            )
                        ),
                    ]
                    for figure in others
                ],
            )
        )
    parts.append("\n" + _METHOD)
    parts.append("\n## Not measured in this run\n\n" + "".join(f"- {why}\n" for why in reasons(results, goals)))
    return "".join(parts)


def _table(headings: Sequence[str], found: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *found]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
