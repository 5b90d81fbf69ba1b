"""A daemon without devices: the real gateway, loop, control socket and answers, on ports in memory."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.config.load import load
from bridge.control.answers.question import Subject
from bridge.control.answers.route import moves_to
from bridge.control.children import InFork
from bridge.control.connection import Connection, Handler
from bridge.control.handlers import handlers_for
from bridge.control.protocol import Document
from bridge.control.server import ControlServer
from bridge.loop.loop import Loop
from bridge.ports.memory import MemoryPort
from bridge.walk.gateway import Gateway
from bridgectl.main import cli
from wire.drop import Drop
from wire.gso import GsoHeader

CONFIGURATION = """
[tap0]
address = "192.168.200.2/24"
mac = "02:00:00:00:c8:02"
[tap0.arp]
"192.168.200.3" = "02:aa:00:00:00:03"
[tap1]
address = "192.168.1.2/24"
mac = "02:00:00:00:01:02"
gateway = "192.168.1.1"
[tun0]
address = "192.168.192.211/24"
[vpn]
address = "192.168.192.210"
node = "hk"
[offload]
prefixes = ["china.txt", "more.txt"]
[[alias.forward]]
on = "tap1"
protocol = "tcp"
outside_port = 8080
inside = "192.168.200.3:80"
[control]
socket = "control.sock"
"""
MAC_ROUTER = bytes.fromhex("02bb00000001")
ROUTER = bytes((192, 168, 1, 1))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a configuration and its lists."""
    (tmp_path / "gateway.toml").write_text(CONFIGURATION)
    (tmp_path / "china.txt").write_text("114.114.114.0/24\n")
    (tmp_path / "more.txt").write_text("223.5.5.0/24\n")
    (tmp_path / "route").mkdir()
    (tmp_path / "route" / "sg").write_text("9.9.9.0/24\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


Run = Callable[..., Result]


@pytest.fixture
def run(folder: Path) -> Run:
    """Run `bridgectl` with words; the result has exit_code, stdout and stderr."""
    runner = CliRunner()

    def call(*words: str, code: int = 0) -> Result:
        result = runner.invoke(cli, list(words), prog_name="bridgectl")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, (words, result.output)
        return result

    return call


def document(result: Result) -> Any:
    """The one JSON document of a result."""
    return json.loads(result.stdout)


class RouterPort(MemoryPort):
    """tap1 with an ISP router behind it that answers ARP."""

    def write(self, frame: bytes | bytearray, gso: GsoHeader | None) -> Drop | None:
        if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\1" and frame[38:42] == ROUTER:
            answer = frame[6:12] + MAC_ROUTER + frame[12:20] + b"\0\2" + MAC_ROUTER + ROUTER + frame[22:32]
            self.deliver(bytes(answer) + bytes(18))
        return super().write(frame, gso)


class Daemon:
    """The parts that `bridge.daemon.daemon` puts together, without kernel devices and without forks."""

    def __init__(self, folder: Path) -> None:
        config = load(folder / "gateway.toml", "replay")
        self.gateway = Gateway(gateway_settings(config), routes_from(config), random.Random(1))
        self.ports = {
            "tap0": MemoryPort("tap0", "tap"),
            "tap1": RouterPort("tap1", "tap"),
            "tun0": MemoryPort("tun0", "tun"),
        }
        self.loop = Loop(self.gateway)
        for port in self.ports.values():
            self.loop.attach(port)
        self.asked: list[tuple[str, Document]] = []
        devices = {name: port.kind for name, port in self.ports.items()}
        handlers: dict[str, Handler] = {
            command: partial(self._answer, command, handler)
            for command, handler in handlers_for(Subject(self.gateway), self.loop, devices).items()
        }
        handlers["reload"] = self._reload
        self.server = ControlServer(self.loop, folder / "control.sock", "", handlers)
        self._running = True
        self._thread = threading.Thread(target=self._turn, name="daemon")
        self._thread.start()

    def _turn(self) -> None:
        while self._running:
            self.loop.turn(0.01)

    def close(self) -> None:
        if not self._running:
            return
        self._running = False
        self._thread.join()
        self.server.close()
        self.loop.close()
        for port in self.ports.values():
            port.close()

    def _answer(
        self, command: str, handler: Handler, arguments: Document, client: Connection
    ) -> Document | InFork | None:
        """The handler's answer, worked out here where a daemon forks: a child of a process with threads may hang."""
        self.asked.append((command, arguments))
        answer = handler(arguments, client)
        return answer.work() if isinstance(answer, InFork) else answer

    def _reload(self, arguments: Document, _client: Connection) -> Document:
        if not arguments["dry_run"]:
            return {"version": 1, "warnings": ["gateway.toml:9: of no effect"]}
        config = load(Path(self.gateway.settings.source), "replay")
        return moves_to(self.gateway, routes_from(config), self.loop.clock())


@pytest.fixture
def daemon(folder: Path) -> Iterator[Daemon]:
    """A running daemon, on `control.sock` in the working directory."""
    running = Daemon(folder)
    yield running
    running.close()
