"""The `lease` program: its variables, its order, its end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bridge.daemon.lease_hook import LeaseHook, environment_of
from dhcp.lease import Lease

LEASE = Lease(0xC0A80132, 24, 0xC0A80101, 0xC0A80101, 3600, 1800, 3150, (), (0xC0A80101, 0x01010101), "isp", 1400)


def program(folder: Path, text: str) -> tuple[Path, int]:
    """A program that writes into a pipe, and the end to read from."""
    os.mkfifo(folder / "said")
    path = folder / "lease.sh"
    path.write_text(f"#!/bin/sh\nexec >>said\n{text}\n")
    path.chmod(0o755)
    return path, os.open(folder / "said", os.O_RDWR)


def lines(reader: int, number: int) -> list[str]:
    data = b""
    while data.count(b"\n") < number:
        data += os.read(reader, 4096)
    return data.decode().splitlines()


def test_d11_each_change_runs_the_program_with_what_the_lease_says(tmp_path: Path) -> None:
    path, reader = program(
        tmp_path, 'echo "$LEASE_CHANGE|$TAP1_ADDRESS/$TAP1_PREFIX_LENGTH|$TAP1_DNS|$TAP1_DOMAIN|$TAP1_MTU"'
    )
    hook = LeaseHook(path)
    hook.run(environment_of("bound", LEASE, 1400))
    hook.run(environment_of("expired", None, 1500))
    assert lines(reader, 2) == ["bound|192.168.1.50/24|192.168.1.1 1.1.1.1|isp|1400", "expired|/|||"]
    hook.close()
    os.close(reader)


def test_words_of_a_server_are_never_a_command(tmp_path: Path) -> None:
    path, reader = program(tmp_path, 'echo "$TAP1_DOMAIN"')
    hook = LeaseHook(path)
    hook.run(environment_of("bound", LEASE._replace(domain="$(id);`id`;go"), 1400))
    assert lines(reader, 1) == ["$(id);`id`;go"]
    hook.close()
    os.close(reader)


def test_a_program_that_runs_is_ended_with_the_gateway(tmp_path: Path) -> None:
    path, reader = program(tmp_path, "echo begun\nexec sleep 60")
    hook = LeaseHook(path)
    hook.run({})
    assert lines(reader, 1) == ["begun"]
    hook.close()  # it waits for the shell, and would wait for a minute
    os.close(reader)


def test_a_program_that_fails_does_not_end_the_next_one(tmp_path: Path) -> None:
    path, reader = program(tmp_path, "echo again\nexit 3")
    hook = LeaseHook(path)
    hook.run({})
    hook.run({})
    assert lines(reader, 2) == ["again", "again"]
    hook.close()
    os.close(reader)


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LeaseHook(tmp_path / "nothing")
