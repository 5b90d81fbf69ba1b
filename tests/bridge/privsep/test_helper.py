"""The process that makes the devices, from the gateway's side: what it is told, and what becomes of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bridge.config import files
from bridge.config.load import read
from bridge.ports.base import PortError
from bridge.ports.plan import DevicePlan
from bridge.privsep.confinement import root_duties_for
from bridge.privsep.helper import Helper
from bridge.privsep.messages import OPEN
from bridge.privsep.order import Order, RootDuties
from bridge.privsep.warden import Files

DUTIES = RootDuties(
    "/run/tapbridge/control.sock", ["/run/tapbridge"], ["/etc/tapbridge"], ["/etc/tapbridge/gateway.toml"]
)


def test_an_order_arrives_as_it_was_given() -> None:
    plans = [
        DevicePlan("tap0", "tap", "tap0", 1500, "lan", bridge="br0", own_mac=bytes(range(6))),
        DevicePlan("tun0", "tun", "tun0", 1420, address="192.168.192.211/24", is_default=True),
    ]
    for order in (Order(plans, DUTIES, is_confined=True), Order(plans, None, is_confined=False)):
        assert Order.unpacked(order.packed()) == order
        assert order.leaves_warden


def test_nothing_stays_where_nothing_is_to_be_kept() -> None:
    assert not Order([DevicePlan("vpn", "tun", "vpn0", 1420)], None, is_confined=True).leaves_warden
    assert Order([], DUTIES, is_confined=True).leaves_warden


def test_one_that_is_killed_is_a_start_that_failed() -> None:
    helper = Helper()
    os.kill(helper.pid, signal.SIGKILL)
    with pytest.raises(PortError, match="the process that makes the devices"):
        helper.make(Order([], None, is_confined=False))
    helper.close()


def test_one_that_gets_no_order_ends() -> None:
    helper = Helper()
    helper.close()
    assert not Path(f"/proc/{helper.pid}").exists()


def test_obstacles_come_back_as_they_were_found() -> None:
    helper = Helper()
    plans = [DevicePlan("tap0", "tap", "tap0", 1500, "no-such-namespace")]
    with pytest.raises(PortError, match="tap0: there is no network namespace 'no-such-namespace'"):
        helper.make(Order(plans, None, is_confined=False))
    helper.close()


def test_the_warden_opens_files_that_a_configuration_names_and_files_of_its_folder(tmp_path: Path) -> None:
    own, elsewhere = tmp_path / "own", tmp_path / "elsewhere"
    for folder in (own, elsewhere, own / "route"):
        folder.mkdir()
    (elsewhere / "list.txt").write_text("192.0.2.0/24\n")
    (elsewhere / "other.txt").write_text("")
    text = f'[tap0]\naddress = "192.168.200.2/24"\n[offload]\nprefixes = ["{elsewhere}/list.txt"]\n'
    duties = root_duties_for(read(text, own / "gateway.toml", "replay"), own / "control.sock", [])
    kept = Files(duties.folders, duties.names)
    (own / "new.txt").write_text("new")
    (own / "way-out").symlink_to(elsewhere / "other.txt")
    os.mkfifo(own / "pipe")
    for path in (own / "new.txt", elsewhere / "list.txt", own / "route", own):
        os.close(kept.open(str(path)))
    for path in (elsewhere / "other.txt", own / "way-out", elsewhere, own / ".." / "elsewhere" / "other.txt"):
        with pytest.raises(PermissionError):
            kept.open(str(path))
    with pytest.raises(OSError, match="Invalid argument"):
        kept.open(str(own / "pipe"))
    (elsewhere / "list.txt").unlink()
    (elsewhere / "list.txt").write_text("made anew, as editors do")
    os.close(kept.open(str(elsewhere / "list.txt")))


def test_system_folders_are_never_opened_whole() -> None:
    kept = Files(["/etc", "/"], ["/etc/hosts"])
    os.close(kept.open("/etc/hosts"))
    with pytest.raises(PermissionError):
        kept.open("/etc/passwd")


def test_whoever_was_told_is_asked_for_what_is_not_ours_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list").write_text("192.0.2.0/24")
    asked: list[Path] = []

    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    def opened(path: Path) -> int:
        asked.append(path)
        return real(path, os.O_RDONLY)

    real = os.open
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError):
        files.read(Path("list"))
    files.ask(opened)
    try:
        assert files.read(Path("list")) == b"192.0.2.0/24"
        assert files.names_of_files(Path()) == ["list"]
    finally:
        files.ask(None)
    assert asked == [tmp_path / "list", tmp_path]


def test_an_order_may_name_more_files_than_a_message_or_an_argument_holds(tmp_path: Path) -> None:
    names = [f"{tmp_path}/the-preshared-key-of-peer-{number:05}.key" for number in range(5000)]
    duties = RootDuties(str(tmp_path / "control.sock"), [], [], names)
    Path(names[-1]).write_text("a key")
    helper = Helper()
    try:
        assert helper.make(Order([], duties, is_confined=False)).ports == {}
        os.close(helper.open(Path(names[-1])))
        with pytest.raises(PermissionError):
            helper.open(tmp_path / "another")
    finally:
        helper.close()


def test_the_warden_outlives_a_question_that_brings_no_socket(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("192.0.2.0/24\n")
    helper = Helper()
    try:
        helper.make(Order([], RootDuties(str(tmp_path / "control.sock"), [], [str(tmp_path)], []), is_confined=False))
        reader, writer = os.pipe()
        socket.send_fds(helper._channel, [OPEN + os.fsencode(tmp_path / "list.txt")], [writer])
        os.close(writer)
        assert os.read(reader, 1) == b"", "the warden has closed it"
        os.close(reader)
        os.close(helper.open(tmp_path / "list.txt"))
    finally:
        helper.close()


def test_a_folder_exchanged_for_a_link_while_it_is_opened_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, outside = tmp_path / "own", tmp_path / "outside"
    for folder in (own, own / "lists", outside):
        folder.mkdir()
    for folder in (own / "lists", outside):
        (folder / "list.txt").write_text("")
    really = os.open

    def exchanged(path: str, flags: int) -> int:
        (own / "lists").rename(own / "before")
        (own / "lists").symlink_to(outside)
        return really(path, flags)

    monkeypatch.setattr("bridge.privsep.warden.os.open", exchanged)
    with pytest.raises(PermissionError):
        Files([str(own)], []).open(str(own / "lists" / "list.txt"))


def test_the_warden_does_not_wait_for_a_log_that_nobody_reads() -> None:
    reader, writer = os.pipe()
    program = "from bridge.privsep.warden import say\nfor _ in range(200): say('INFO', 'x' * 1000)"
    assert subprocess.run([sys.executable, "-c", program], stderr=writer, timeout=30, check=False).returncode == 0
    os.close(reader)
    assert subprocess.run([sys.executable, "-c", program], stderr=writer, timeout=30, check=False).returncode == 0
    os.close(writer)


@pytest.mark.parametrize("folder", ["/tmp"])
def test_a_configuration_in_a_folder_of_everything_opens_what_it_names_and_no_more(folder: str) -> None:
    with tempfile.NamedTemporaryFile(dir=folder) as named, tempfile.NamedTemporaryFile(dir=folder) as other:
        kept = Files([folder], [named.name])
        os.close(kept.open(named.name))
        for path in (other.name, folder):
            with pytest.raises(PermissionError):
                kept.open(path)
