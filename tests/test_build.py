"""The build, with a compiler and without one: both give a package that works. No network: nothing is fetched.

`pip install .` runs as an operator would run it, in a virtual environment of its own where our dependencies lie
already; what it asks for and does not find there makes it fail.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether

from bridge.daemon import built
from tests.compiled import needs_a_compiler
from tests.conftest import ROOT
from wire import pcap

BUILD_S = 110
QUICK = {"CFLAGS": "-O0"}
"""Where all is compiled, a quarter of the time: what is tested is that it builds and serves, not how fast."""
NOT_COPIED = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "*.c", "__pycache__", "tests", "docs")
SHIPPED = ("alias", "arp", "bridge", "bridgectl", "dhcp", "flow", "icmp", "lab", "route", "tunnel", "wire")
OURS = ("tapbridge", "__editable__", "pytricia")
SAID = "tapbridge: nothing is compiled"

CONFIGURATION = """
[tap0]
address = "192.168.200.2/24"
mac = "02:00:00:00:c8:02"
[tap1]
address = "192.168.1.2/24"
mac = "02:00:00:00:01:02"
gateway = "192.168.1.1"
[tap1.arp]
"192.168.1.1" = "02:bb:00:00:00:01"
[offload]
prefixes = ["offload.txt"]
"""

# Three packages, one inside another; each compiled module takes something from the one before it.
AMONG_THEMSELVES = {
    "wire/first.pxd": "cdef int doubled(int number) noexcept nogil\n",
    "wire/first.pyx": "cdef int doubled(int number) noexcept nogil:\n    return 2 * number\n",
    "flow/second.pxd": "from wire.first cimport doubled\ncdef class Second:\n    cdef int four(self) noexcept\n",
    "flow/second.pyx": "cdef class Second:\n    cdef int four(self) noexcept:\n        return doubled(2)\n",
    "bridge/ports/third.pyx": "from flow.second cimport Second\ndef eight():\n    return 2 * Second().four()\n",
}

pytestmark = pytest.mark.timeout(BUILD_S + 10)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what is under version control, as a clone would be: nothing compiled yet."""
    for tool in ("Cython", "setuptools", "pip"):
        if importlib.util.find_spec(tool) is None:
            assert os.environ.get("CI") != "true", f"{tool} belongs to the dev extra"
            pytest.skip(f"{tool} is not installed")
    return Path(shutil.copytree(ROOT, tmp_path / "tree", ignore=NOT_COPIED))


def clean() -> dict[str, str]:
    """The environment without what would steer the build, pip, or the choice between compiled and plain."""
    unwanted = {"PYTHONPATH", "WITHOUT_COMPILER", "PORTABLE_WHEEL", "TAPBRIDGE_FAST", "CC", "CFLAGS", "LDSHARED"}
    kept = {name: value for name, value in os.environ.items() if name not in unwanted and not name.startswith("PIP_")}
    return {**kept, "PIP_CONFIG_FILE": os.devnull}


class Fresh:
    """A virtual environment with everything that this one has but ourselves and, unless it is wanted, pytricia."""

    def __init__(self, folder: Path, *, with_pytricia: bool) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=BUILD_S)
        self.programs = folder / "bin"
        where = {"base": str(folder), "platbase": str(folder)}
        self.packages = Path(sysconfig.get_path("purelib", "venv", where))
        for entry in Path(sysconfig.get_path("purelib")).iterdir():
            if not entry.name.startswith(OURS) or (with_pytricia and entry.name.startswith("pytricia")):
                (self.packages / entry.name).symlink_to(entry)

    def run(
        self, *words: str | Path, cwd: Path, code: int = 0, timeout_s: int = BUILD_S, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """A program of the environment; standard error goes into its output."""
        done = subprocess.run(
            [self.programs / words[0], *words[1:]],
            cwd=cwd,
            env={**clean(), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done

    def install(self, tree: Path, **environment: str) -> str:
        """`pip install .`, and what it says."""
        words = ["-m", "pip", "install", "--verbose", "--no-index", "--no-build-isolation", "."]
        return self.run("python", *words, cwd=tree, **environment).stdout


def wheel_of(tree: Path, **environment: str) -> Path:
    """The wheel that `pip install .` would install."""
    words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "made"]
    subprocess.run([sys.executable, *words, "."], cwd=tree, env={**clean(), **environment}, check=True, timeout=BUILD_S)
    (wheel,) = (tree / "made").glob("*.whl")
    return wheel


def asks_for_pytricia(wheel: Path) -> bool:
    """Whether its metadata demand it; the extra of that name does not count."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    return any(line.startswith("Requires-Dist: pytricia") and "extra" not in line for line in lines)


def compiled_in(wheel: Path) -> set[str]:
    """The compiled modules in it, as paths without their endings."""
    with zipfile.ZipFile(wheel) as archive:
        return {name.partition(".")[0] for name in archive.namelist() if name.endswith(".so")}


def strange_in(wheel: Path) -> set[str]:
    """The files in it that no gateway needs, and the rooms that it lacks."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    ours = tuple(f"{room}/" for room in SHIPPED)
    lacking = {room for room in SHIPPED if f"{room}/__init__.py" not in names}
    return lacking | {name for name in names if not name.startswith(ours) or not name.endswith((".py", ".pyi", ".so"))}


def a_capture(folder: Path) -> list[str | Path]:
    """A configuration and a capture of offloaded traffic; the words that replay it."""
    (folder / "gateway.toml").write_text(CONFIGURATION)
    (folder / "offload.txt").write_text("114.114.114.0/24\n")
    host = "02:aa:00:00:00:03"
    question = ARP(psrc="192.168.200.3", hwsrc=host, pdst="192.168.200.2")
    frames = [Ether(src=host, dst="ff:ff:ff:ff:ff:ff") / question]
    to_us = Ether(src=host, dst="02:00:00:00:c8:02")
    for port in range(5000, 5020):
        there = IP(src="192.168.200.3", dst=f"114.114.114.{port % 7 + 1}")
        frames.append(to_us / there / UDP(sport=port, dport=53) / b"question")
    with (folder / "lan.pcap").open("wb") as file:
        writer = pcap.PcapWriter(file, pcap.LINK_ETHERNET)
        for number, frame in enumerate(frames):
            writer.write(1_000_000_000 + number * 1_000_000, bytes(frame))
    return ["replay", "-c", "gateway.toml", "--in", "tap0=lan.pcap", "--seed", "7", "--out"]


def test_with_a_compiler_everything_is_compiled_and_pytricia_is_asked_for(tree: Path, tmp_path: Path) -> None:
    needs_a_compiler()
    if importlib.util.find_spec("pytricia") is None:
        assert os.environ.get("CI") != "true" or os.environ.get("WITHOUT_COMPILER"), "scripts/install brings pytricia"
        pytest.skip("pytricia is not installed")
    for name, text in AMONG_THEMSELVES.items():
        (tree / name).write_text("# cython: language_level=3\n" + text)
    fresh = Fresh(tmp_path / "fresh", with_pytricia=True)
    assert SAID not in fresh.install(tree, **QUICK)
    code = """
from bridge.daemon import built
from bridge.vpn import ciphers as cores
from bridge.ports.third import eight
print(built.missing(), cores.open_cores(2, {}).kind, eight(), cores.__file__)
"""
    said = fresh.run("python", "-c", code, cwd=tmp_path).stdout
    assert said == f"[] compiled 8 {fresh.packages / 'bridge' / 'vpn' / 'ciphers.py'}\n"
    (metadata,) = fresh.packages.glob("tapbridge-*.dist-info/METADATA")
    assert "Requires-Dist: pytricia>=1.0.2\n" in metadata.read_text()
    for package in ("bridge", "flow", "tunnel", "wire"):
        assert not {path for path in (fresh.packages / package).rglob("*") if path.suffix in {".pyx", ".pxd", ".c"}}


def test_without_a_compiler_it_installs_says_so_once_and_forwards_the_same(tree: Path, tmp_path: Path) -> None:
    fresh = Fresh(tmp_path / "fresh", with_pytricia=False)
    alone = {"PATH": str(fresh.programs)}
    assert fresh.install(tree, **alone).count(SAID) == 1

    words = a_capture(tmp_path)
    fresh.run("bridgectl", *words, "plain", cwd=tmp_path, **alone)
    here = {**clean(), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "bridgectl", *words, "here"]
    subprocess.run(command, cwd=tmp_path, env=here, check=True, timeout=BUILD_S, capture_output=True)
    made = {file.name: file.read_bytes() for file in (tmp_path / "plain").iterdir()}
    assert made == {file.name: file.read_bytes() for file in (tmp_path / "here").iterdir()}
    assert made["tap1.pcap"].count(b"question") == 20

    # `run` says what is missing before it opens anything; under a plain file no socket can be, so it goes no further.
    (tmp_path / "file").touch()
    said = fresh.run("bridgectl", "run", "-c", "gateway.toml", "--socket", "file/s", cwd=tmp_path, code=1, **alone)
    assert said.stdout.count("not compiled here") == 1, said.stdout
    assert all(name in said.stdout for name in ("pytricia", *built.MODULES))


def test_every_package_but_the_trials_is_shipped() -> None:
    there = {
        ".".join(path.parent.relative_to(ROOT).parts) for top in SHIPPED for path in (ROOT / top).rglob("__init__.py")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert sorted(project["setuptools"]["packages"]) == sorted(there)
    assert set(project["importlinter"]["root_packages"]) == {*SHIPPED, "trials"}


@pytest.mark.parametrize(
    "environment", [{"CC": "false"}, {"WITHOUT_COMPILER": "1"}], ids=lambda given: next(iter(given))
)
def test_a_compiler_that_fails_or_is_not_wanted_is_none(tree: Path, environment: dict[str, str]) -> None:
    wheel = wheel_of(tree, **environment)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert strange_in(wheel) == set()
    assert not asks_for_pytricia(wheel)


def test_a_wheel_for_other_machines_asks_for_nothing_that_must_be_compiled_there(tree: Path) -> None:
    needs_a_compiler()
    wheel = wheel_of(tree, PORTABLE_WHEEL="1", **QUICK)
    assert compiled_in(wheel) == {name.replace(".", "/") for name in built.MODULES}
    assert not asks_for_pytricia(wheel)
    assert strange_in(wheel) == set()


def test_a_wheel_for_other_machines_is_compiled_or_not_made(tree: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        wheel_of(tree, PORTABLE_WHEEL="1", CC="false")


def test_a_source_distribution_that_was_made_without_a_compiler_can_be_compiled(tree: Path) -> None:
    (tree / "flow" / "shared.pxd").write_text("ctypedef int Number\n")
    code = "from setuptools.build_meta import build_sdist; print(build_sdist('made'))"
    environment = {**clean(), "CC": "false"}
    subprocess.run(
        [sys.executable, "-c", code], cwd=tree, env=environment, check=True, timeout=BUILD_S, capture_output=True
    )
    (archive,) = (tree / "made").glob("*.tar.gz")
    with tarfile.open(archive) as made:
        names = {name.partition("/")[2] for name in made.getnames()}
    stems = [name.replace(".", "/") for name in built.MODULES]
    stubs = {f"{stem}.pyi" for stem in stems if (tree / f"{stem}.pyi").exists()}  # of those that Python code imports
    sources = {f"{stem}.pyx" for stem in stems} | stubs
    assert {"setup.py", "pyproject.toml", "flow/shared.pxd"} | sources <= names
    assert not {name for name in names if name.endswith((".c", ".so"))}


def test_every_compiled_module_is_looked_for_when_the_gateway_starts() -> None:
    sources = {path.relative_to(ROOT) for depth in ("*", "*/*", "*/*/*") for path in ROOT.glob(f"{depth}/*.pyx")}
    ours = {path for path in sources if not path.parts[0].startswith((".", "build"))}
    assert {".".join(path.with_suffix("").parts) for path in ours} == set(built.MODULES)


def test_nothing_compiled_is_missing_on_the_build_machine() -> None:
    if os.environ.get("CI") != "true" or os.environ.get("WITHOUT_COMPILER"):
        pytest.skip("only with CI=true, and not where it is left out on purpose")
    assert built.missing() == []


def test_what_is_missing_is_named_unless_plain_python_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built, "MODULES", ("tunnel.no_such_module",))
    monkeypatch.setattr(built, "BEST", "pytricia")
    said = built.complaint({})
    assert said is not None
    assert ": tunnel.no_such_module; plain" in said
    assert built.complaint({"TAPBRIDGE_FAST": "0"}) is None
    monkeypatch.setattr(built, "MODULES", ())
    assert built.complaint({}) is None
