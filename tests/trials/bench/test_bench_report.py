"""A run as people see it: cells, the JSON document, the page and its picture."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.trials.bench.benchmark_run import results
from trials.bench import page, plot, report
from trials.bench.__main__ import in_turns, main
from trials.bench.contestants import CONTESTANTS, KERNEL, OFFLOAD, OURS
from trials.bench.figure import summary
from trials.bench.goals import judged, reasons
from trials.bench.results import document

_SVG = "{http://www.w3.org/2000/svg}"


def test_a_cell_has_the_spread_and_what_was_lost() -> None:
    figure = summary("a", "kpps", [201.0, 199.5, 210.0])
    assert report.cell(figure) == "201 (200 to 210)"
    assert report.cell(figure._replace(loss_percent=0.61)) == "201 (200 to 210); 0.61 % lost"
    assert report.cell(figure._replace(loss_percent=0.01, remark="bound by the sender")) == (
        "201 (200 to 210); bound by the sender"
    )
    assert report.cell(summary("a", "kpps", [1.234])) == "1.23"
    assert report.cell(None) == "-"


def test_the_document_has_every_figure_with_its_conditions() -> None:
    run = results()
    told = json.loads(json.dumps(document(run, judged(run), reasons(run, judged(run)))))
    assert told["version"] == 1
    assert {"machine", "contestants", "figures", "goals", "turns", "not_measured", "rounds", "seconds"} <= told.keys()
    for figure in told["figures"]:
        assert {
            "name",
            "unit",
            "median",
            "low",
            "high",
            "values",
            "frames",
            "direction",
            "loss_percent",
        } <= figure.keys()
        assert figure["low"] <= figure["median"] <= figure["high"]
        assert len(figure["values"]) == len(figure["rounds"])
    ours = next(f for f in told["figures"] if (f["contestant"], f["key"]) == (OURS, "udp_kpps"))
    assert ours["direction"] == "LAN to outside"
    assert "64-byte frames" in ours["frames"]
    assert ours["loss_percent"] == pytest.approx(0.4)
    assert ours["beside_cores"] == 0.1
    assert [taker["absent"] for taker in told["contestants"] if taker["absent"]] == ["pasta not installed <yet>"]


def test_tables_are_printed_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    run = results()
    report.show(run, judged(run))
    told = capsys.readouterr().out
    for wanted in (
        "Offload path",
        "Tunnel path",
        "Goals:",
        "P17",
        "Not measured:",
        "absent: pasta not installed <yet>",
    ):
        assert wanted in told


def test_the_picture_is_well_formed_and_has_a_bar_for_each_figure_with_whiskers() -> None:
    run = results()
    panels = plot.panels(run, judged(run))
    drawn = ElementTree.fromstring(plot.svg(panels, "a <caption> & more"))
    assert drawn.tag == f"{_SVG}svg"
    bars = sum(len(panel.bars) for panel in panels)
    assert len(panels) == len(plot.PANELS)
    assert len(drawn.findall(f"{_SVG}rect")) == bars == 16
    width, height = float(drawn.attrib["width"]), float(drawn.attrib["height"])
    for bar in drawn.findall(f"{_SVG}rect"):
        assert 0 <= float(bar.attrib["x"]) <= width
        assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= width
        assert float(bar.attrib["y"]) + float(bar.attrib["height"]) <= height


def test_a_panel_has_the_bound_that_ours_is_held_against() -> None:
    run = results()
    panels = {panel.title: panel for panel in plot.panels(run, judged(run))}
    up = panels["offload: TCP, 1 stream, up, Mbit/s"]
    assert up.bound == pytest.approx(0.85 * 1500)
    assert up.bound_text == "P1: 0.85 x kernel"
    assert panels["tunnel: 64-byte UDP, loss < 1 %, kpps"].bound == pytest.approx(1.5 * 187.5)


@pytest.mark.parametrize("cores", [0.02, 1.9])
def test_a_machine_that_was_not_quiet_is_said_to_be_so(cores: float) -> None:
    run = results()
    beside = [(number, turn._replace(beside=turn.beside._replace(cores=cores))) for number, turn in run.turns]
    told = " ".join(report.conditions(run._replace(turns=beside)))
    assert (report.BUSY in told) == (cores > 1)
    assert "LAN to outside and outside to LAN" in told


def test_an_empty_picture_is_a_picture() -> None:
    assert ElementTree.fromstring(plot.svg([], "nothing")).tag == f"{_SVG}svg"


def test_page_and_picture_are_written_with_whole_tables(tmp_path: Path) -> None:
    run = results()
    written = page.write(run, judged(run), tmp_path)
    assert [path.name for path in written] == ["performance.md", "performance.svg"]
    told = written[0].read_text()
    assert "](performance.svg)" in told
    assert "pasta: absent: pasta not installed <yet>." in told
    columns = 0
    for line in told.splitlines():
        if not line.startswith("|"):
            columns = 0
            continue
        cells = line.replace("\\|", "").count("|")
        assert columns in (0, cells), line
        columns = cells


def test_each_second_round_goes_backwards() -> None:
    names = [(number, taker.name) for number, taker in in_turns(CONTESTANTS[:3], 3)]
    first = [taker.name for taker in CONTESTANTS[:3]]
    assert names == [(1, name) for name in first] + [(2, name) for name in first[::-1]] + [(3, name) for name in first]


def test_an_unknown_name_is_a_usage_error_that_names_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--peers", "kernel strangers"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "strangers" in told
    assert KERNEL in told


def test_an_absent_program_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    for taker in CONTESTANTS:
        assert taker.path == OFFLOAD
        told = taker.absent()
        assert told is not None
        assert taker.programs[0] in told
