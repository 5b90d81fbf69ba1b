"""The tunnel's state in a folder that is not ours any more: written in place, and whole whenever the gateway ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bridge.state.stamps import StampFile
from tunnel.effects import Stamps

PEER = bytes(range(32))
FIRST, SECOND = (Stamps(bytes([number]) * 12, bytes([number + 1]) * 12) for number in (1, 3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tunnel.json"


def held(path: Path) -> StampFile:
    file = StampFile(path)
    file.hold(os.getuid(), os.getgid())
    return file


def test_what_is_held_is_written_and_read_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = held(path)
    assert file.read() == {}
    assert not caplog.text, "a file that was only made is no fault"
    file.write({PEER: SECOND, bytes(32): FIRST})
    file.write({PEER: FIRST})
    assert StampFile(path).read() == {PEER: FIRST}
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("left", [0, 1, 40])
def test_an_end_in_the_middle_leaves_the_one_or_the_other(path: Path, left: int) -> None:
    """At any time one of both files is whole: while the new one is written the old one, and the other way round."""
    file = held(path)
    file.write({PEER: FIRST})
    whole = path.read_bytes()
    new = path.with_name("tunnel.json.new")
    new.write_bytes(whole[:left])
    assert StampFile(path).read() == {PEER: FIRST}
    file.write({PEER: SECOND})
    whole = path.read_bytes()
    new.write_bytes(whole)
    path.write_bytes(whole[:left])
    assert StampFile(path).read() == {PEER: SECOND}


def test_what_cannot_be_held_is_told_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    StampFile(tmp_path / "file" / "tunnel.json").hold(0, 0)
    assert "cannot be kept for the user 0" in caplog.text


def test_a_file_with_a_second_name_is_given_to_nobody(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    (path.parent / "another").write_text("kept")
    path.hardlink_to(path.parent / "another")
    held(path)
    assert "it has another name" in caplog.text
    assert path.read_text() == "kept"


def test_neither_a_pipe_nor_an_endless_file_holds_up_a_start(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    assert StampFile(path).read() == {}
    path.unlink()
    path.touch()
    os.truncate(path, 1 << 36)
    assert StampFile(path).read() == {}
    assert "it is longer than 16 MiB" in caplog.text
