"""The offline part of `make audit` that holds on any machine, and that it sees what it is there for.

What is installed is looked at by `make audit` alone: an environment that was made from ranges is not at fault.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from scripts import audit
from tests.conftest import ROOT


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of the files that say what is depended on, to be spoiled."""
    for name in ("setup.py", "pyproject.toml", "scripts/install", "docs/dependencies.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "requirements").mkdir()
    for lock in audit.LOCKS:
        (tmp_path / f"requirements/{lock}.txt").write_text((ROOT / f"requirements/{lock}.txt").read_text())
    monkeypatch.setattr(audit, "ROOT", tmp_path)
    monkeypatch.setattr(audit, "REASONS", tmp_path / "docs/dependencies.md")
    return tmp_path


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_locks_hold_what_is_asked_for_in_versions_that_are_allowed_and_with_hashes() -> None:
    assert list(audit.lock_faults()) == []


def test_nothing_in_the_lock_of_the_installation_is_unused() -> None:
    assert audit.unused() == set()


def test_each_direct_dependency_has_its_reason() -> None:
    assert list(audit.reason_faults()) == []


def test_what_the_build_needs_is_pinned_with_what_is_installed_and_with_the_tools() -> None:
    for name in ("setuptools", "cython"):
        assert audit.locked("packages")[name] == audit.locked("tools")[name]  # type: ignore[index]  # canonical already


def test_every_installation_of_packages_by_a_script_demands_hashes_or_no_index() -> None:
    for script in ("install", "wheel", "lock", "audit"):
        text = (ROOT / "scripts" / script).read_text().replace("\\\n", " ")
        for line in re.findall(r"pip\"? (?:install|wheel) .*", text):
            fallback = "'.[dev" in line or line.endswith("uv packaging")
            tried = '"$wheels"/*.whl' in line
            assert fallback or tried or "--require-hashes" in line or "--no-index" in line, f"{script}: {line}"


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        ("setup.py", '"click>=8.1"', '"click>=99"', "packages: click .* is not what is asked for"),
        ("setup.py", '"click>=8.1"', '"click>=8.1", "flask>=3"', "packages: flask is asked for and not in it"),
        ("pyproject.toml", '"uv>=0.5"', '"uvloop"', "tools: uvloop is asked for and not in it"),
        ("requirements/pytricia.txt", "--hash=sha256:", "--hash=sha256:0", "pytricia: pytricia has no hash"),
        (
            "requirements/tools.txt",
            "# Written",
            "--index-url https://host.example/\n# Written",
            "tools: it names a host",
        ),
    ],
)
def test_a_lock_that_does_not_agree_is_seen(elsewhere: Path, file: str, old: str, new: str, fault: str) -> None:
    replace(elsewhere / file, old, new)
    (said,) = audit.lock_faults()
    assert re.match(fault, said), said


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        ("setup.py", '"click>=8.1"', '"click>=8.1", "flask>=3"', "no reason for flask"),
        ("setup.py", '    "rich>=13.7",\n', "", "rich is not depended on"),
        ("scripts/install", "need ip iproute2", "need ip iproute2 ethtool", "no reason for ethtool"),
    ],
)
def test_a_dependency_without_a_reason_and_a_reason_without_one_are_seen(
    elsewhere: Path, file: str, old: str, new: str, fault: str
) -> None:
    replace(elsewhere / file, old, new)
    assert list(audit.reason_faults()) == [f"dependencies.md: {fault}"]


def test_what_nobody_asks_for_is_seen_in_the_lock(elsewhere: Path) -> None:
    with (elsewhere / "requirements/packages.txt").open("a") as file:
        file.write(f"flask==3.1 \\\n    --hash=sha256:{'0' * 64}\n")
    assert audit.unused() == {"flask"}


def test_a_file_that_was_changed_after_its_installation_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "thing-1.dist-info"
    record.mkdir()
    (tmp_path / "thing.py").write_text("")
    # SHA-256 of nothing (FIPS 180-4), in base64 for addresses without its filling.
    nothing = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
    (record / "RECORD").write_text(
        f"thing.py,sha256={nothing},0\ngone.py,sha256={nothing},0\nthing-1.dist-info/RECORD,,\n"
    )
    (record / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: thing\nVersion: 1\nLicense-Expression: MIT AND SSPL-1.0\n"
    )
    found = list(audit.metadata.distributions(path=[str(tmp_path)]))
    monkeypatch.setattr(audit.metadata, "distributions", lambda: found)
    assert list(audit.file_faults()) == ["thing: gone.py is gone"]
    (tmp_path / "thing.py").write_text("x")
    assert next(audit.file_faults()) == "thing: thing.py was changed after it was installed"
    assert list(audit.licence_faults()) == ["thing: SSPL-1.0 is not among the licences that were looked at"]
    assert list(audit.version_faults()) == ["thing is installed and in no lock"]


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, "ok     no known vulnerability in 1 packages"),
        ([{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1"}]}], 1, "FAULT  a 1: PYSEC-1"),
        ([{"name": "a", "skip_reason": "not found"}], 0, "not asked: the database of known vulnerabilities"),
    ],
    ids=["clean", "flawed", "not_asked"],
)
def test_a_database_that_does_not_answer_is_no_clean_bill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], packages: list[object], code: int, said: str
) -> None:
    (tmp_path / "found.json").write_text(json.dumps({"dependencies": packages, "fixes": []}))
    assert audit.main(["--advisories", str(tmp_path / "found.json")]) == code
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(said)
