"""The log: written at once or lost and counted, never waited for."""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.daemon.log import LogHandler


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            continue


def log_to(descriptor: int) -> logging.Logger:
    """A logger of its own, which nobody else hears."""
    logger = logging.Logger("tested", logging.INFO)
    handler = LogHandler(descriptor)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger.addHandler(handler)
    return logger


def test_a_message_is_a_line(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log_to(writer).warning("%s is %d", "one", 1)
    assert os.read(reader, 100) == b"WARNING: one is 1\n"


def test_a_pipe_that_nobody_reads_holds_up_nothing_and_what_is_lost_is_counted(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    logger = log_to(writer)
    for number in range(size // 1000 + 100):
        logger.info("%d %s", number, "x" * 1000)
    assert os.get_blocking(writer), "others share the descriptor: it stays as it is"
    os.read(reader, size)
    logger.info("read again")
    said = os.read(reader, size).decode().splitlines()
    assert said[-1] == "INFO: read again"
    assert said[-2].startswith("WARNING: ")
    assert said[-2].endswith("messages before this one could not be written")
    assert int(said[-2].split()[1]) >= 90
    logger.info("and again")
    assert os.read(reader, size) == b"INFO: and again\n"


def test_a_reader_who_has_gone_is_no_error(pipe: tuple[int, int], capfd: pytest.CaptureFixture[str]) -> None:
    reader, writer = pipe
    logger = log_to(writer)
    os.close(reader)
    logger.error("nobody hears")
    os.close(writer)
    logger.error("nor this")
    assert capfd.readouterr().err == ""


def test_a_full_disk_is_no_error_and_leaves_no_traceback_behind(capfd: pytest.CaptureFixture[str]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        logger = log_to(full)
        for _ in range(100):
            logger.error("no room")
    finally:
        os.close(full)
    assert capfd.readouterr().err == ""


def test_a_message_that_cannot_be_made_is_told_with_its_place(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log_to(writer).info("%d", "no number")
    said = os.read(reader, 1000).decode()
    assert said.startswith("ERROR: a bug in a message of ")
    assert Path(__file__).name in said


def test_a_closed_standard_error_is_never_another_file(tmp_path: Path) -> None:
    """Without a place of its own the log would go to whatever is opened next."""
    program = (
        "import logging, os, sys; from bridge.daemon.log import log_to_stderr; log_to_stderr();"
        "opened = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT); logging.error('not for a file');"
        "sys.stderr.write('nor this'); sys.stderr.flush(); sys.exit(0 if opened > 2 else opened)"
    )
    path = tmp_path / "another"
    words = ["/bin/sh", "-c", 'exec "$0" "$@" 0<&- 1>&- 2>&-', sys.executable, "-c", program, str(path)]
    assert subprocess.run(words, check=False).returncode == 0
    assert path.read_bytes() == b""
