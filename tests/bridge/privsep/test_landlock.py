"""Each version of Landlock is asked for its rights; a kernel without it, or a machine without libseccomp, leaves
less."""

from __future__ import annotations

import logging
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.config.load import read
from bridge.privsep import confinement, landlock, seccomp
from bridge.privsep.landlock import Right


@pytest.mark.parametrize(
    ("version", "length", "added"),
    [
        (1, 8, Right(0)),
        (2, 8, Right.REFER),
        (3, 8, Right.REFER | Right.TRUNCATE),
        (4, 16, Right.REFER | Right.TRUNCATE),
        (5, 16, Right.REFER | Right.TRUNCATE | Right.IOCTL_DEV),
        (6, 24, Right.REFER | Right.TRUNCATE | Right.IOCTL_DEV),
        (99, 24, Right.REFER | Right.TRUNCATE | Right.IOCTL_DEV),
    ],
)
def test_a_kernel_is_asked_only_for_what_its_version_has(version: int, length: int, added: Right) -> None:
    """linux/landlock.h: 13 rights at first, two of them for reading, which we do not take away."""
    attributes = landlock.ruleset(version)
    assert len(attributes) == length
    (rights,) = struct.unpack_from("=Q", attributes)
    assert rights == 0b1111111110011 | added
    if length >= 16:
        assert struct.unpack_from("=Q", attributes, 8) == (3,)
    if length == 24:
        assert struct.unpack_from("=Q", attributes, 16) == (2,)


def confined(code: str) -> str:
    """The output of a process of its own, which is confined and does not come back from it."""
    everywhere = {**os.environ, "PYTHONPATH": "."}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60, env=everywhere)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_files_are_written_and_removed_where_it_was_asked_for_and_nowhere_else(tmp_path: Path) -> None:
    if not landlock.version():
        pytest.skip("this kernel has no Landlock")
    for name in ("kept", "sockets", "above/made", "other"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("")
    (tmp_path / "above/made/file").unlink()
    code = f"""
import ctypes, os
from pathlib import Path
from bridge.privsep import landlock
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
here = Path({str(tmp_path)!r})
landlock.confine([str(here / "kept"), str(here / "missing")], [str(here / "sockets")], [str(here / "above")])
(here / "kept/new").write_text("")
(here / "kept/new").rename(here / "kept/file")
(here / "sockets/file").unlink()
(here / "above/made").rmdir()
(here / "other/file").read_text()
for what in (
    lambda: (here / "other/file").write_text(""),
    lambda: (here / "other/file").unlink(),
    lambda: (here / "other/new").mkdir(),
    lambda: (here / "sockets/new").write_text(""),
    lambda: (here / "kept/file").rename(here / "other/file"),
    lambda: os.truncate(here / "other/file", 0),
    lambda: os.execv("/bin/true", ["true"]),
):
    try:
        what()
    except OSError:
        continue
    print("not refused")
"""
    assert confined(code) == ""


def test_the_filter_refuses_and_forked_children_and_threads_go_on() -> None:
    code = """
import ctypes, os, socket, threading
from bridge.privsep import seccomp
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
elsewhere = []
before = threading.Event()
def late():
    before.wait()
    try:
        socket.socket(socket.AF_PACKET)
    except OSError as error:
        elsewhere.append(error.errno)
thread = threading.Thread(target=late)
thread.start()
assert seccomp.confine()
before.set()
thread.join()
assert elsewhere == [97], elsewhere
made = threading.Thread(target=lambda: elsewhere.append("made"))
made.start()
made.join()
assert elsewhere[-1] == "made"
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
    socket.socket(family, socket.SOCK_DGRAM).close()
assert ctypes.CDLL(None).unshare(0x10000000) == -1
pid = os.fork()
if pid == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
"""
    assert confined(code) == ""


def test_a_machine_without_either_is_told_once_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The answers of such a kernel and of such a machine, so that this process itself stays free."""
    monkeypatch.setattr(landlock, "version", lambda: 0)
    monkeypatch.setattr(seccomp, "LIBRARY", "libseccomp.so.missing")
    config = read('[tap0]\naddress = "192.168.200.2/24"\n', tmp_path / "gateway.toml", "replay")
    with caplog.at_level(logging.INFO):
        confinement.confine(config, tmp_path / "control.sock", [])
    assert [record.message for record in caplog.records] == [
        "this kernel has no Landlock: what the gateway may write is bounded by its user alone",
        "there is no libseccomp.so.missing: no system call is refused to the gateway",
    ]
