"""The build, with a compiler and without one: both give a package that works. No network: nothing is fetched."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

BUILD_S = 110
NOT_COPIED = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "*.c", "__pycache__", "tests", "docs")

pytestmark = pytest.mark.timeout(BUILD_S + 10)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what is under version control, as a clone would be: nothing compiled yet."""
    for tool in ("Cython", "setuptools", "pip"):
        if importlib.util.find_spec(tool) is None:
            assert os.environ.get("CI") != "true", f"{tool} belongs to the dev extra"
            pytest.skip(f"{tool} is not installed")
    return Path(shutil.copytree(ROOT, tmp_path / "tree", ignore=NOT_COPIED))


def wheel_of(tree: Path, **environment: str) -> Path:
    """What `pip install .` would install."""
    words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "made"]
    subprocess.run([sys.executable, *words, "."], cwd=tree, env={**clean(), **environment}, check=True, timeout=BUILD_S)
    (wheel,) = (tree / "made").glob("*.whl")
    return wheel


def clean() -> dict[str, str]:
    unwanted = {"PYTHONPATH", "WITHOUT_COMPILER", "CC", "CFLAGS"}
    return {name: value for name, value in os.environ.items() if name not in unwanted}


def said_by(wheel: Path, tmp_path: Path) -> str:
    """Which cipher an installation of the wheel takes."""
    place = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    code = """
import sys
# An editable installation of the tree that is tested would be asked for modules that this one lacks.
sys.meta_path[:] = [finder for finder in sys.meta_path if "Editable" not in str(finder)]
import bridge.cores
print(bridge.cores.open_cores(2).kind, bridge.cores.__file__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**clean(), "PYTHONPATH": str(place)},
        check=True,
        timeout=BUILD_S,
        capture_output=True,
        text=True,
    )
    kind, file = done.stdout.split()
    assert Path(file).is_relative_to(place)
    return kind


def test_with_a_compiler_the_package_is_compiled(tree: Path, tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        assert os.environ.get("CI") != "true" or os.environ.get("WITHOUT_COMPILER"), "scripts/install brings gcc"
        pytest.skip("no gcc here")
    assert said_by(wheel_of(tree), tmp_path) == "compiled"


def test_without_a_compiler_it_installs_all_the_same(tree: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    assert said_by(wheel_of(tree, PATH=str(nothing)), tmp_path) == "plain"


def test_a_compiler_that_fails_does_not_fail_the_installation(tree: Path, tmp_path: Path) -> None:
    assert said_by(wheel_of(tree, CC="false"), tmp_path) == "plain"


def test_the_compiled_part_may_be_left_out_on_purpose(tree: Path, tmp_path: Path) -> None:
    assert said_by(wheel_of(tree, WITHOUT_COMPILER="1"), tmp_path) == "plain"


def test_the_source_distribution_can_be_compiled(tree: Path) -> None:
    code = "from setuptools.build_meta import build_sdist; print(build_sdist('made'))"
    subprocess.run(
        [sys.executable, "-c", code], cwd=tree, env=clean(), check=True, timeout=BUILD_S, capture_output=True
    )
    (archive,) = (tree / "made").glob("*.tar.gz")
    with tarfile.open(archive) as made:
        names = {name.partition("/")[2] for name in made.getnames()}
    assert {"setup.py", "pyproject.toml", "tunnel/burst.pyx", "tunnel/burst.pyi"} <= names
    assert not {name for name in names if name.endswith((".c", ".so"))}
