"""A running daemon with a tunnel: its keys are in its memory and in their files, and nowhere else."""

from __future__ import annotations

import base64
import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest

from bridge.control.client import ControlError
from bridge.ports.namespace import entered
from lab.process import LabProcess
from lab.topology import TUNNELLED, Lab
from lab.wireguard import FarEnd

pytestmark = pytest.mark.lab

# The daemon as `bridgectl run` starts it, but with all that it ever logs.
TALKATIVE = """
import logging, sys
from pathlib import Path
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
from bridge.daemon.daemon import run
sys.exit(run(Path(sys.argv[1])))
"""
QUESTIONS = [
    ("arp.show", {}),
    ("alias.show", {}),
    ("flows", {}),
    ("route.show", {}),
    ("route.get", {"ip": TUNNELLED}),
    ("route.table", {}),
    ("peers", {}),
    ("stats", {}),
    ("reload", {"dry_run": True}),
    ("reload", {}),
    ("trace", {"port": "tap0", "hex": "00"}),
    ("no such question", {"private_key": True}),
]


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children = [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]
    return [pid, *(one for child in children for one in family(child))]


def told_by_the_system(gateway: LabProcess) -> bytes:
    """Arguments and environment of the whole process tree."""
    told = b""
    for pid in family(gateway.pid):
        for name in ("cmdline", "environ", "comm", "status"):
            told += Path(f"/proc/{pid}/{name}").read_bytes()
    return told


def answers(lab: Lab) -> str:
    """Everything that the control socket says."""
    told = ""
    for question, arguments in QUESTIONS:
        try:
            told += json.dumps(lab.ask(question, **arguments))
        except ControlError as refused:
            told += str(refused)
    return told


def metrics(lab: Lab) -> str:
    with entered("gw"), urllib.request.urlopen("http://127.0.0.1:9586/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def assert_no_key(far: FarEnd, told: str) -> None:
    for file in (far.ours, far.psk):
        key = base64.b64decode(file.text)
        for secret in (file.text.rstrip("="), key.hex(), key.hex(" "), repr(key)[2:-1], base64.b32encode(key).decode()):
            assert secret not in told
            assert secret.upper() not in told


def test_no_key_but_the_public_ones_is_told_anywhere(wired: Lab, far: FarEnd) -> None:
    far.start(psk=True)
    configuration = far.configuration(psk=True)
    assert "[control]\n" in configuration
    wired.configure(configuration.replace("[control]\n", '[control]\nmetrics = "127.0.0.1:9586"\n'))
    gw = wired.namespaces["gw"]
    gw.ip("link set lo up")
    gateway = wired.start_gateway(program=TALKATIVE)
    assert wired.client("lan3", "ping", TUNNELLED)["ok"]
    told = told_by_the_system(gateway).decode(errors="backslashreplace")
    assert "from bridge.daemon.daemon import run" in told
    told += answers(wired) + metrics(wired)
    for words in (
        ("check", "-c", str(wired.config_path)),
        ("check", "-j", "-c", str(wired.config_path)),
        ("peers", "-j", "--socket", str(wired.socket_path)),
        ("peers", "--socket", str(wired.socket_path)),
    ):
        told += gw.python("-m", "bridgectl", *words)
    assert far.far.public in told
    (wired.folder / "private.key").chmod(0o644)
    with pytest.raises(ControlError, match="others may read the key"):
        wired.ask("reload")
    (wired.folder / "private.key").chmod(0o600)
    told += (wired.folder / "tunnel.json").read_text()
    assert wired.stop_gateway() == 0
    errors = gateway.errors()
    assert "forwarding on" in errors
    assert_no_key(far, told + errors)


def test_a_daemon_that_crashes_leaves_no_core(wired: Lab, far: FarEnd) -> None:
    far.start(psk=True)
    wired.configure(far.configuration(psk=True))
    gateway = wired.start_gateway()
    assert wired.client("lan3", "ping", TUNNELLED)["ok"]
    limits = Path(f"/proc/{gateway.pid}/limits").read_text()
    assert next(line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")) == ["0", "0"]
    here = Path(os.readlink(f"/proc/{gateway.pid}/cwd"))
    before = set(here.iterdir())
    gateway.signal(signal.SIGABRT)
    assert gateway.wait() == -signal.SIGABRT
    assert not {path.name for path in set(here.iterdir()) - before if path.name.startswith("core")}
