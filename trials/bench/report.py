"""The run for people: tables of rich on the terminal. Their cells are those of the page (`trials.bench.page`) too."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from trials.bench.contestants import OFFLOAD, TUNNEL
from trials.bench.figure import Figure
from trials.bench.goals import Judged, reasons, summed_up
from trials.bench.results import Results, Taker
from trials.bench.turn import MEASURES

PATHS = {
    OFFLOAD: "Offload path: LAN host, gateway with source NAT, ISP router, host behind it",
    TUNNEL: "Tunnel path: LAN host, gateway, tunnel, exit; both ends on this machine",
}
_WIDTH = 150
_QUIET_CORES = 0.1
BUSY = "The machine was not quiet: these figures show that everything runs, not how fast it is."
_COLOURS = {"stretch": "green", "reached": "green", "missed": "red", "no stretch": "yellow", "not measured": "yellow"}


def number(value: float) -> str:
    """With as many digits as say something."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(figure: Figure) -> str:
    """Median and, of more than one round, lowest and highest."""
    return number(figure.median) + (
        f" ({number(figure.low)} to {number(figure.high)})" if len(figure.values) > 1 else ""
    )


def cell(figure: Figure | None) -> str:
    """A figure with its spread, and with what was lost if anything was, and a remark if there is one."""
    if figure is None:
        return "-"
    lost = figure.loss_percent
    said = [f"{lost:.2g} % lost"] if lost is not None and lost >= 0.05 else []
    if figure.remark:
        said.append(figure.remark)
    return spread(figure) + (f"; {'; '.join(said)}" if said else "")


def rows(results: Results, path: str) -> tuple[list[Taker], list[tuple[str, list[str]]]]:
    """Of a path: who is there, and a row for each measure with their cells."""
    takers = [taker for taker in results.takers if taker.path == path and not taker.absent]
    found = []
    for key, measure in MEASURES.items():
        figures = [results.figure(path, taker.name, key) for taker in takers]
        if any(figures):
            found.append((f"{measure.name}, {measure.unit}", [cell(figure) for figure in figures]))
    return takers, found


def conditions(results: Results) -> list[str]:
    """The conditions of all figures of the lab."""
    middle, most = results.beside_cores
    stolen_s = sum(turn.stolen_s for _, turn in results.turns)
    frames: dict[str, list[str]] = {}
    for measure in MEASURES.values():
        directions = frames.setdefault(measure.frames, [])
        if measure.direction and measure.direction not in directions:
            directions.append(measure.direction)
    sent = [f"{text} ({' and '.join(directions)})" for text, directions in frames.items() if directions]
    return [
        f"Median of {results.rounds} rounds, in brackets lowest and highest; contestants in turns, each second round "
        f"backwards; {results.seconds} s a TCP load. {results.tools}",
        f"Others used {middle:.2f} cores just before the turns (median), {most:.2f} at most; other machines took "
        f"{stolen_s:.1f} s from ours meanwhile." + (f" {BUSY}" if middle >= _QUIET_CORES else ""),
        "`up` is LAN to outside, `down` the reverse. Loss is the worst round's, of TCP the share of segments that were "
        "sent again; where none is said it was below 0.05 %.",
        "Frames: " + ". ".join(sent) + ".",
    ]


def goal_cells(goal: Judged) -> list[str]:
    """A line of the goals."""
    if goal.median is None:
        measured = "-"
    else:
        measured = f"{number(goal.median)} {goal.unit}"
        if goal.low != goal.high and goal.low is not None and goal.high is not None:
            measured += f" ({number(goal.low)} to {number(goal.high)})"
    sign = "" if goal.wants_more else "at most "
    marks = [sign + number(mark) if mark is not None else "-" for mark in (goal.least, goal.stretch)]
    return [goal.goal, goal.what, goal.against, measured, *marks, goal.state]


GOAL_HEADINGS = ("goal", "figure", "held against", "measured", "at least", "stretch", "state")


def show(results: Results, goals: Sequence[Judged]) -> None:
    """Print all of it."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    for path, title in PATHS.items():
        takers, found = rows(results, path)
        if found:
            table = Table(title=title, title_justify="left", show_lines=False)
            table.add_column("what")
            for taker in takers:
                table.add_column(taker.name, justify="right")
            for name, cells in found:
                table.add_row(name, *cells)
            console.print(table)
    if results.turns:
        for line in conditions(results):
            console.print(line, markup=False, highlight=False)
        for taker in results.takers:
            told = f"absent: {taker.absent}" if taker.absent else f"{taker.note}. {taker.version}".strip()
            console.print(f"{taker.path}/{taker.name}: {told}", markup=False, highlight=False)
    others = [figure for figure in results.figures if figure.path not in PATHS]
    if others:
        table = Table(title=f"our own, median of {results.rounds} rounds", title_justify="left")
        for heading in ("what", "median", "lowest", "highest", "unit", "frames, direction, loss"):
            table.add_column(
                heading, justify="left" if heading in ("what", "unit", "frames, direction, loss") else "right"
            )
        for figure in others:
            lost = "" if figure.loss_percent is None else f"{figure.loss_percent:.2g} % lost"
            told = ", ".join(filter(None, (figure.frames, figure.direction, lost, figure.remark)))
            table.add_row(figure.name, *(f"{value:.2f}" for value in figure[2:5]), figure.unit, told)
        console.print(table)
    table = Table(title=f"Goals: {summed_up(goals)}", title_justify="left")
    for heading in GOAL_HEADINGS:
        table.add_column(heading)
    for goal in goals:
        *cells, state = goal_cells(goal)
        table.add_row(*cells, f"[{_COLOURS[goal.state]}]{state}[/]")
    console.print(table)
    console.print("Not measured:", style="bold")
    for reason in reasons(results, goals):
        console.print(f"- {reason}", markup=False, highlight=False)
