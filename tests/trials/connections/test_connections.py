"""New TCP connections, measured in their smallest form: every part of the account is there and adds up."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lab.process import CommandFailed
from tests.compiled import needs_a_compiler
from tests.laboratory import needing_the_kernel
from trials.connections import ends
from trials.connections.__main__ import main, text
from trials.connections.measure import PATHS, bound_by, measured

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def compiler() -> None:
    needs_a_compiler()


@pytest.mark.parametrize("path", PATHS)
def test_callers_connect_through_the_gateway_and_each_second_of_cpu_is_somebodys(path: str) -> None:
    with needing_the_kernel():
        one = measured(path, 0.5, callers=2)
    assert one.done > 0
    assert one.failed == 0
    assert one.waiting <= 2
    assert one.cpu_us > 0
    assert (one.far_cpu_us > 0) == (path == "tunnel")
    assert 0 < one.connect_p50_ms <= one.connect_p99_ms <= one.connect_longest_ms
    assert one.drops == {"walk.policed": 0, "alias.host_limit": 0}
    assert {"gateway", "callers", "servers"} <= set(one.cores)
    assert one.bound_by in {*one.cores, "all cores", "other programs", "callers that wait"}
    assert text(one).startswith(f"{path}: ")


def test_the_command_prints_one_json_object_for_a_path(capsys: pytest.CaptureFixture[str]) -> None:
    with needing_the_kernel():
        code = main(["--seconds", "0.2", "--callers", "1", "--only", "tap1", "-j"])
    if code == 2 and os.environ.get("CI") != "true":
        pytest.skip(capsys.readouterr().err)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["path"] == "tap1"
    assert code == 0


def test_a_rate_is_bound_by_a_busy_process_else_by_the_machine_else_by_waiting() -> None:
    assert bound_by({"gateway": 0.95, "callers": 0.6}, busy=1.9, there=2) == "gateway"
    assert bound_by({"gateway": 0.7, "callers": 0.6}, busy=1.9, there=2) == "all cores"
    assert bound_by({"gateway": 0.2, "callers": 0.1}, busy=1.9, there=2) == "other programs"
    assert bound_by({"gateway": 0.1, "callers": 0.1}, busy=0.4, there=2) == "callers that wait"


def test_words_of_the_compiler_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ends.c").write_text("int main(void) { return nothing; }\n")
    monkeypatch.setattr(ends, "SOURCE", tmp_path / "ends.c")
    with pytest.raises(CommandFailed, match="nothing"):
        ends.compiled(tmp_path)
