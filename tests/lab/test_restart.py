"""A gateway that is killed and started again under established connections: they go on, whoever speaks first."""

from __future__ import annotations

import json
import signal
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

import pytest

from lab.process import LabProcess
from lab.topology import CONFIGURATION, HOSTS, OFFLOAD_LIST, Lab
from tests.lab.far_end import peer
from trials.bench.restart import DIRECTIONS, PATHS, RestartPath, measure

pytestmark = pytest.mark.lab

PORTS = count(7900)
"""No port serves twice: kernels remember connections that were closed."""
BYTES = 1_000_000


class Held:
    """A TCP connection of a LAN host."""

    def __init__(
        self, lab: Lab, path: RestartPath, host: str, stack: ExitStack, source_port: int | None = None
    ) -> None:
        port = next(PORTS)
        self.far = lab.namespaces[path.far].start_python(
            "-m", "trials.traffic.held", "accept", path.address, str(port), listens=True
        )
        stack.callback(self.far.stop)
        assert self.far.line() == "ready"
        self.near = lab.namespaces[host].start_python(
            "-m", "trials.traffic.held", "call", path.address, str(port), str(source_port or port), listens=True
        )
        stack.callback(self.near.stop)
        assert self.near.line() == "ready"
        self.far.say("peer")
        self.seen_as = json.loads(self.far.line())["peer"]

    def carries(self, seed: int) -> None:
        """The far end speaks first, then the near one; both are heard word for word."""
        for speaker, hearer in ((self.far, self.near), (self.near, self.far)):
            speaker.say(f"send {seed} {BYTES}")
            hearer.say(f"take {BYTES}")
            assert json.loads(hearer.line()) == json.loads(speaker.line())


def pour(speaker: LabProcess, hearer: LabProcess, seed: int) -> None:
    """One end sends without a pause."""
    speaker.say(f"pour {seed} {BYTES}")
    hearer.say("drain")
    assert speaker.line() == "begun"


def poured(speaker: LabProcess, hearer: LabProcess) -> None:
    """It ends; all of it has arrived."""
    speaker.say("enough")
    sent = json.loads(speaker.line())
    assert json.loads(hearer.line()) == sent
    assert sent["bytes"] >= BYTES


@pytest.fixture
def stack(bare_lab: Lab) -> Iterator[ExitStack]:
    """Processes of a test end with it."""
    with ExitStack() as opened:
        yield opened
        bare_lab.remove_gateway()


def start(lab: Lab, path: RestartPath, stack: ExitStack, more: str = "") -> None:
    configuration = path.prepare(lab, stack) or CONFIGURATION
    lab.configure(configuration + more, OFFLOAD_LIST)
    lab.start_gateway()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_connections_survive_a_kill(bare_lab: Lab, path: RestartPath, stack: ExitStack) -> None:
    """U3, T5, R1: idle ones are entered from outside first; busy ones, one in each direction, lose no byte."""
    lab = bare_lab
    start(lab, path, stack)
    near = next(PORTS), next(PORTS)  # both LAN hosts use the same ones, so that one of them has another outside
    idle = [Held(lab, path, host, stack, near[0]) for host in HOSTS]
    busy = [Held(lab, path, host, stack, near[1]) for host in HOSTS]
    assert len({held.seen_as for held in idle}) == 2
    pour(busy[0].near, busy[0].far, 1)
    pour(busy[1].far, busy[1].near, 2)
    assert lab.gateway is not None
    lab.gateway.signal(signal.SIGKILL)
    lab.gateway.wait()
    gateway = lab.start_gateway()
    assert " links go on from before the restart" in gateway.errors()
    for number, held in enumerate(idle):
        held.carries(number)
    poured(busy[0].near, busy[0].far)
    poured(busy[1].far, busy[1].near)
    seen = {link["outside"] for link in lab.ask("alias.show")["links"]}
    assert {held.seen_as for held in (*idle, *busy)} <= seen
    if path.name == "vpn, the tunnel":
        assert peer(lab)["state"] == "up"


def test_an_orderly_stop_keeps_them_and_nobody_else_may_read_it(bare_lab: Lab, stack: ExitStack) -> None:
    start(bare_lab, PATHS[0], stack)
    held = Held(bare_lab, PATHS[0], "lan3", stack)
    assert bare_lab.stop_gateway() == 0
    assert stat.S_IMODE((bare_lab.folder / "control.links").stat().st_mode) == 0o600
    bare_lab.start_gateway()
    held.carries(7)


def test_a_file_of_something_else_stops_no_start(bare_lab: Lab, stack: ExitStack) -> None:
    (bare_lab.folder / "rubbish").write_bytes(bytes(range(256)) * 20)
    start(bare_lab, PATHS[0], stack, '[alias]\nstate_file = "rubbish"\n')
    assert bare_lab.gateway is not None
    assert "rubbish: it is no link file; links begin anew" in bare_lab.gateway.errors()
    Held(bare_lab, PATHS[0], "lan3", stack).carries(1)


def test_without_a_file_nothing_is_kept(bare_lab: Lab, stack: ExitStack) -> None:
    start(bare_lab, PATHS[0], stack, '[alias]\nstate_file = ""\n')
    Held(bare_lab, PATHS[0], "lan3", stack).carries(1)
    assert bare_lab.stop_gateway() == 0
    assert "links go on" not in bare_lab.start_gateway().errors()
    assert not list(bare_lab.folder.glob("*.links*"))


def test_the_gap_is_measured_in_every_direction(bare_lab: Lab, stack: ExitStack) -> None:
    """`python -m trials.bench.restart` in short; the tunnel is called at once, or its silent LAN would wait for 15
    s."""
    ((out, back, woken),) = measure(bare_lab, PATHS[2], 1, signal.SIGKILL, prefixes=100)
    assert len(DIRECTIONS) == 3
    assert min(out, back, woken) > 0
