"""A reload, stage by stage: over the real control socket, with a gateway that has no devices."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.config.into_walk import gateway_settings
from bridge.control.answers.question import Subject
from bridge.control.children import Children
from bridge.control.server import ControlServer
from bridge.daemon.reload import Reloader
from bridge.daemon.setup import read_setup
from bridge.loop.loop import Loop
from bridge.walk.gateway import Gateway
from wire.units import address_int

CONFIGURATION = """
[tap0]
address = "192.168.200.2/24"
[tap1]
address = "192.168.1.2/24"
gateway = "192.168.1.1"
[vpn]
address = "192.168.192.210"
node = "hk"
interface = "vpn0"
[offload]
prefixes = ["list.txt"]
"""
LISTED, ELSEWHERE = address_int("203.0.113.7"), address_int("198.51.100.7")
DEADLINE_S = 20.0


class Running:
    """A gateway that serves `reload`; the tests turn its loop."""

    def __init__(self, folder: Path) -> None:
        self.configuration = folder / "gateway.toml"
        self.configuration.write_text(CONFIGURATION)
        self.list = folder / "list.txt"
        self.list.write_text("203.0.113.0/24\n")
        setup = read_setup(self.configuration)
        self.gateway = Gateway(gateway_settings(setup.config), setup.routes, random.Random(1))
        self.loop = Loop(self.gateway)
        children = Children(self.loop)
        self.subject = Subject(self.gateway, config=setup.config)
        self.reloader = Reloader(self.configuration, self.subject, self.loop, children, "STATUS=forwarding")
        self.server = ControlServer(self.loop, folder / "control.sock", "", {"reload": self.reloader.answer}, children)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(self.server.path))
        connection.setblocking(False)
        return connection

    def answer(self, connection: socket.socket) -> Any:
        """The next answer on the connection; the loop turns until it is there."""
        deadline, data = time.monotonic() + DEADLINE_S, b""
        while not data.endswith(b"\n"):
            assert time.monotonic() < deadline, "no answer"
            self.loop.turn(0.01)
            try:
                data += connection.recv(1 << 16)
            except BlockingIOError:
                continue
        return json.loads(data)

    def reload(self, **arguments: object) -> Any:
        with self.connect() as connection:
            connection.send(json.dumps({"command": "reload", "arguments": arguments}).encode() + b"\n")
            return self.answer(connection)

    def targets(self) -> tuple[str, str]:
        return self.gateway.routes.target(LISTED), self.gateway.routes.target(ELSEWHERE)

    def close(self) -> None:
        self.server.close()
        self.loop.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.close()


def test_a_reload_uses_changed_lists_and_answers_with_the_warnings(running: Running) -> None:
    assert running.targets() == ("tap1", "vpn:hk")
    running.list.write_text("198.51.100.0/24\n")
    answer = running.reload()
    assert answer == {"ok": True, "result": {"version": 1, "warnings": list(running.subject.config.warnings)}}
    assert running.targets() == ("vpn:hk", "tap1")


def test_a_reload_of_files_with_errors_changes_nothing_and_names_each_line(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    running.list.write_text("198.51.100.0/24\nnonsense\n")
    answer = running.reload()
    assert (answer["ok"], answer["code"]) == (False, 4)
    assert "list.txt:2: " in answer["error"]
    assert running.targets() == ("tap1", "vpn:hk")
    assert "reload refused, nothing changed:" in caplog.text


def test_a_key_that_needs_a_restart_is_refused_by_its_name(running: Running) -> None:
    running.configuration.write_text(CONFIGURATION.replace("192.168.200.2/24", "192.168.201.2/24"))
    running.list.write_text("198.51.100.0/24\n")
    answer = running.reload()
    assert answer["code"] == 1
    assert answer["error"] == "tap0.address: cannot change while the gateway runs; restart it instead"
    assert running.targets() == ("tap1", "vpn:hk")


def test_a_reload_that_is_asked_for_while_another_reads_is_done_after_it(running: Running) -> None:
    with running.connect() as first, running.connect() as second:
        first.send(b'{"command": "reload"}\n')
        running.loop.turn(1)
        while running.server.clients < 2:
            running.loop.turn(0.01)
        running.list.write_text("198.51.100.0/24\n")
        second.send(b'{"command": "reload"}\n')
        assert [running.answer(first)["ok"], running.answer(second)["ok"]] == [True, True]
    assert running.targets() == ("vpn:hk", "tap1")


def test_sighup_reloads_and_a_second_one_meanwhile_reloads_once_more(running: Running) -> None:
    running.reloader.hang_up()
    running.list.write_text("198.51.100.0/24\n")
    running.reloader.hang_up()
    deadline = time.monotonic() + DEADLINE_S
    while running.targets() != ("vpn:hk", "tap1"):
        assert time.monotonic() < deadline
        running.loop.turn(0.01)


def test_a_dry_run_tells_the_moves_and_makes_none(running: Running) -> None:
    running.list.write_text("198.51.100.0/24\n")
    moves = running.reload(dry_run=True)["result"]["moves"]
    assert [(move["prefix"], move["from"], move["to"]) for move in moves] == [
        ("198.51.100.0/24", "vpn:hk", "tap1"),
        ("203.0.113.0/24", "tap1", "vpn:hk"),
    ]
    assert running.targets() == ("tap1", "vpn:hk")


def test_a_list_that_is_empty_is_refused_and_force_takes_it(running: Running) -> None:
    running.list.write_text("")
    answer = running.reload()
    assert (answer["ok"], answer["code"]) == (False, 4)
    assert "list.txt:1: this list has no prefixes, its last good copy of " in answer["error"]
    assert "bridgectl reload --force" in answer["error"]
    assert running.reload(dry_run=True)["code"] == 4
    assert running.targets() == ("tap1", "vpn:hk")
    assert running.reload(force=True, dry_run=True)["ok"]
    assert running.targets() == ("tap1", "vpn:hk")
    warnings = running.reload(force=True)["result"]["warnings"]
    assert any("taken all the same" in warning for warning in warnings)
    assert running.targets() == ("vpn:hk", "vpn:hk")
    assert running.reload()["ok"], "it is the last good copy now"


def test_force_takes_the_lines_that_can_be_read(running: Running) -> None:
    running.list.write_text("198.51.100.0/24\nnonsense\n")
    assert running.reload(force=True)["ok"]
    assert running.targets() == ("vpn:hk", "tap1")
