"""One gateway per socket."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bridge.daemon.instance import AlreadyRunning, InstanceLock


def test_a_second_holder_is_refused_with_the_first_one_s_process(tmp_path: Path) -> None:
    first = InstanceLock(tmp_path / "control.sock")
    with pytest.raises(AlreadyRunning) as refusal:
        InstanceLock(tmp_path / "control.sock")
    assert refusal.value.pid == os.getpid()
    first.release()


def test_releasing_leaves_no_file_and_the_next_holder_gets_it(tmp_path: Path) -> None:
    for _ in range(2):
        lock = InstanceLock(tmp_path / "control.sock")
        lock.release()
        lock.release()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_holder_is_taken_over(tmp_path: Path) -> None:
    hold = (
        "import sys, pathlib; from bridge.daemon.instance import InstanceLock;"
        "lock = InstanceLock(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "control.sock"
    with subprocess.Popen(
        [sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(AlreadyRunning):
            InstanceLock(path)
        holder.kill()
        holder.wait()
    assert InstanceLock(path).path.exists()


def test_the_child_of_a_killed_holder_is_waited_for(tmp_path: Path) -> None:
    """A child answers questions, and has the lock until the kernel has ended it too."""
    hold = (
        "import os, sys, pathlib; from bridge.daemon.instance import InstanceLock;"
        "lock = InstanceLock(pathlib.Path(sys.argv[1]));"
        "child = os.fork() == 0; os.write(1, b'child\\n' if child else b'held\\n'); sys.stdin.read()"
    )
    path = tmp_path / "control.sock"
    with subprocess.Popen(
        [sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert {holder.stdout.readline(), holder.stdout.readline()} == {"held\n", "child\n"}
        holder.kill()
        holder.wait()
        tries: list[int] = []
        with ThreadPoolExecutor(1) as pool, pytest.MonkeyPatch.context() as patch:
            flock = fcntl.flock

            def counted(fd: int, operation: int) -> None:
                tries.append(fd)
                flock(fd, operation)

            patch.setattr("bridge.daemon.instance.fcntl.flock", counted)
            next_holder = pool.submit(InstanceLock, path)
            while len(tries) < 3 and not next_holder.done():
                os.sched_yield()
            holder.stdin.close()  # the child ends
            lock = next_holder.result()
        lock.release()


def test_nobody_else_may_open_the_file_and_hold_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "control.sock.lock"
    path.touch()
    path.chmod(0o644)  # as an earlier version made it
    lock = InstanceLock(tmp_path / "control.sock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lock.release()
    InstanceLock(tmp_path / "control.sock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_in_its_place_leads_to_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "control.sock.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        InstanceLock(tmp_path / "control.sock")
    assert (tmp_path / "precious").read_text() == "kept"
