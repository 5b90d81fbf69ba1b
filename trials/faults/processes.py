"""The daemon itself: stopped, killed, its log and its disk full, its clients silent."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import ExitStack
from functools import partial

from bridge.control.client import ControlError
from lab.flows import FLOWS
from lab.process import LabProcess
from lab.topology import HOSTS, OFFLOADED
from trials.faults.case import Case
from trials.faults.links import WAITING
from trials.faults.stage import FaultStage
from trials.faults.tunnels import HANDSHAKE, TUNNELLED_FLOWS

RUN = """
import os, sys, time
from bridgectl.main import main
{before}
sys.exit(main(["run", "-c", sys.argv[1]]))
"""
"""`bridgectl run` in a world that is made worse first (`Lab.start_gateway`)."""
MANY = """
import socket, sys
for port in range(20000, 20000 + int(sys.argv[2])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(5)
        one.bind(("", port))
        one.sendto(bytes(12), (sys.argv[1], 7790))
        one.recv(64)
"""
IDLE_PORT = 40_000
CLIENTS = 64
LONG_ANSWER_LINKS = 2500
"""Links whose list is longer than a socket's buffer: 200 bytes each."""


def _stopped(stage: FaultStage, seconds: float) -> None:
    stage.began()
    stage.gateway.signal(signal.SIGSTOP)
    stage.hold(seconds)
    stage.gateway.signal(signal.SIGCONT)
    stage.over()


def _killed(stage: FaultStage, _seconds: float) -> None:
    """Two idle connections from one source port beside the busy traffic: the second has another port outside."""
    with ExitStack() as stack:
        idle = {}
        idle_ends: list[str] = []
        for name in HOSTS:
            words = ("-m", "trials.traffic.lasting", "hold", OFFLOADED, str(IDLE_PORT))
            idle[name] = stage.lab.namespaces[name].start_python(*words, listens=True)
            stack.callback(idle[name].stop)
            stage.expect(idle[name].line() == "whole", f"{name} has no connection")
        outside = {link["inside"]: link["outside"] for link in stage.lab.ask("alias.show")["links"]}
        kept, changed = (outside[f"{address}:{IDLE_PORT}"].rpartition(":")[2] for address in HOSTS.values())
        stage.expect(kept == str(IDLE_PORT) != changed, f"the ports outside are {kept} and {changed}")
        stage.began()
        stage.gateway.signal(signal.SIGKILL)
        stage.gateway.wait()
        stage.start_gateway()
        stage.over()
        for process in idle.values():
            process.say("")
            idle_ends.append(process.line())
    stage.expect(idle_ends == ["whole", "whole"], f"idle connections from one source port: {idle_ends}")
    stage.note("idle TCP connections are whole, one whose port was kept and one whose port had to be changed")


def _list_broken(stage: FaultStage, _seconds: float) -> None:
    """A download brings an error page instead of a list; then the daemon is killed and starts again."""
    path = stage.lab.folder / "offload.txt"
    good = path.read_text()
    path.write_text("<html>503 Service Unavailable</html>\n")
    try:
        stage.lab.ask("reload")
    except ControlError as refusal:
        stage.expect(refusal.code == 4, f"the reload was refused in another way: {refusal.message}")
    else:
        stage.expect(False, "the reload took the list")
    stage.began()
    stage.gateway.signal(signal.SIGKILL)
    stage.gateway.wait()
    stage.start_gateway()
    stage.over()
    stage.passes(*FLOWS)
    told = [one["copy_of"] for one in stage.lab.ask("stats")["lists"] if one["file"].endswith("offload.txt")]
    stage.expect(told != [None], "stats does not tell that the copy is used")
    path.write_text(good)
    stage.lab.ask("reload")


def _clients_hang(stage: FaultStage, seconds: float) -> None:
    """A third says half of a request, a third asks for a long list and reads nothing of it, a third captures a port and
    reads nothing; somebody else asks meanwhile."""
    stage.lab.namespaces["lan4"].python("-c", MANY, OFFLOADED, str(LONG_ANSWER_LINKS))
    with ExitStack() as stack:
        stage.began()
        for number in range(CLIENTS - 4):
            client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            client.connect(str(stage.lab.socket_path))
            request = {"command": "alias.show", "arguments": {}} if number % 3 else {}
            if number % 3 == 2:
                request = {"command": "capture", "arguments": {"port": "tap0"}}
            line = json.dumps(request).encode() + b"\n"
            client.send(line if number % 3 else line[:1])
        longest = 0.0
        questions = 0
        first = stage.attempts()
        while stage.attempts() < first + seconds * stage.rate:
            longest = max(longest, stage.timed("stats"))
            questions += 1
        stage.note(f"{questions} questions of another client were answered meanwhile, each within {longest:.1f} s")
        listed = stage.timed("alias.show")
        stage.note(f"its list of links came within {listed:.1f} s")
    stage.over()


def _log_breaks(worse: str, stage: FaultStage, _seconds: float) -> None:
    """A daemon with such a log takes over; reloads that are refused have much to say."""
    stage.began()
    stage.gateway.signal(signal.SIGKILL)
    stage.gateway.wait()
    stage.start_gateway(RUN.format(before=worse))
    stage.over()
    stage.passes(*FLOWS)
    good = stage.lab.config_path.read_text()
    stage.lab.config_path.write_text(good + "".join(f"[dance{number}]\n" for number in range(200)))
    for _ in range(RELOADS):
        try:
            stage.lab.ask("reload")
        except ControlError as refusal:
            stage.expect(refusal.code == 4, f"the reload was refused in another way: {refusal.message}")
    stage.lab.config_path.write_text(good)
    stage.lab.ask("reload")


RELOADS = 5
FULL_LOG = 'os.dup2(os.open("/dev/full", os.O_WRONLY), 2)'
CLOSED_LOG = "r, w = os.pipe(); os.close(r); os.dup2(w, 2)"
STUCK_LOG = """
r, w = os.pipe()
os.dup2(w, 2)
os.set_blocking(w, False)
try:
    while True: os.write(w, bytes(4096))
except BlockingIOError:
    os.set_blocking(w, True)
"""


def _log_disk_fills(stage: FaultStage, _seconds: float) -> None:
    """A log in a file, on a disk that is full for a while; what is written behind that is there, and says so."""
    path = stage.disk / "log"
    stage.began()
    stage.gateway.signal(signal.SIGKILL)
    stage.gateway.wait()
    stage.start_gateway(
        RUN.format(before=f"os.dup2(os.open({str(path)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)")
    )
    stage.over()
    stage.passes(*FLOWS)
    stage.fill_disk()
    room = 2 * os.statvfs(stage.disk).f_bsize // len("INFO: reloaded\n")
    for _ in range(room):  # what is left of the file's last block
        stage.lab.ask("reload")
    stage.free_disk()
    stage.lab.ask("reload")
    stage.until(lambda: "could not be written" in path.read_text(), "the log says that it was interrupted")
    said = path.read_text()
    path.unlink()
    stage.expect(said.endswith("INFO: reloaded\n") and "Traceback" not in said, f"the log ends with {said[-300:]}")


def _state_disk_full(stage: FaultStage, _seconds: float) -> None:
    """The other end restarts, so that there is a new stamp to be kept."""
    stage.fill_disk()
    stage.began()
    stage.end.kill()
    stage.end.start()
    stage.over()
    stage.passes(*TUNNELLED_FLOWS)
    kept = json.loads((stage.disk / "tunnel.json").read_text())
    stage.expect(len(kept) == 1, "what was kept before is gone")
    said = stage.gateway.errors()
    stage.free_disk()
    told = said.count("recorded handshake may be taken once")
    stage.expect(told == 1, f"it said {told} times that the stamps cannot be written: {said[-1000:]}")


def _capture_disk_full(stage: FaultStage, _seconds: float) -> None:
    stage.began()
    words = ("-m", "bridgectl", "capture", "--port", "tap0", "-w", str(stage.disk / "frames.pcapng"))
    capture: LabProcess = stage.lab.namespaces["gw"].start_python(*words, "--socket", str(stage.lab.socket_path))
    try:
        code = capture.wait(60.0)
        says = capture.errors()
    finally:
        capture.stop()
    stage.over()
    stage.expect(
        code == 1 and "frames.pcapng: " in says and "Traceback" not in says, f"the capture ended with {code}: {says}"
    )
    stage.note(f"the capture ended with exit code {code}: {says.strip()}")
    (stage.disk / "frames.pcapng").unlink()


CASES = (
    Case(
        "stopped",
        "SIGSTOP, then SIGCONT",
        _stopped,
        seconds=10.0,
        short_s=2.0,
        drops=HANDSHAKE | WAITING,
        recovers_s=30,
    ),
    Case("killed", "kill -9 and started again", _killed, drops=HANDSHAKE | WAITING, restarts=True),
    Case(
        "list-broken",
        "a list becomes an error page, then kill -9 and started again",
        _list_broken,
        drops=HANDSHAKE | WAITING,
        restarts=True,
    ),
    Case("clients-hang", f"{CLIENTS - 4} control clients hang", _clients_hang, seconds=10.0, short_s=1.0, touches=()),
    Case(
        "log-full",
        "the log's disk is full",
        partial(_log_breaks, FULL_LOG),
        is_tested=False,  # tests/bridge/daemon/test_log.py; the next ones go further
        restarts=True,
        renews=True,
        drops=HANDSHAKE | WAITING,
    ),
    Case(
        "log-closed",
        "whoever read the log has gone",
        partial(_log_breaks, CLOSED_LOG),
        is_tested=False,  # tests/bridge/daemon/test_log.py; the next ones go further
        restarts=True,
        renews=True,
        drops=HANDSHAKE | WAITING,
    ),
    Case(
        "log-stuck",
        "whoever reads the log reads no more",
        partial(_log_breaks, STUCK_LOG),
        restarts=True,
        renews=True,
        drops=HANDSHAKE | WAITING,
    ),
    Case(
        "log-disk",
        "the log's disk is full for a while",
        _log_disk_fills,
        restarts=True,
        renews=True,
        drops=HANDSHAKE | WAITING,
    ),
    Case("state-full", "the disk of the tunnel's stamps is full", _state_disk_full, drops=HANDSHAKE, recovers_s=60.0),
    Case("capture-full", "the disk that a capture goes to is full", _capture_disk_full, touches=()),
)
