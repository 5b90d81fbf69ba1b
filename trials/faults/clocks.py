"""Clocks: the wall clock steps, and the clock of timers passes 2^32 milliseconds.

Neither can be done to the machine. The wall clock is put in the program's hands (`time.time_ns` of the daemon adds what
stands in a file), for it is read there and nowhere else; the clock of timers is the kernel's own, in a time namespace.
"""

from __future__ import annotations

import json
import signal
import time

from lab.flows import FLOWS
from lab.private import Impossible
from lab.process import CommandFailed, run
from trials.faults.case import Case
from trials.faults.links import WAITING
from trials.faults.processes import RUN
from trials.faults.stage import FaultStage
from trials.faults.tunnels import HANDSHAKE

HOUR_S = 3600
STEPPED = """
real_ns, real = time.time_ns, time.time
def step():
    return int(open({path!r}).read())
time.time_ns = lambda: real_ns() + step() * 10**9
time.time = lambda: real() + step()
"""
WRAP_S = (1 << 32) / 1000
OLD = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x80):  # CLONE_NEWTIME; it takes hold when the next program begins
    sys.exit(f"no time namespace: {{os.strerror(ctypes.get_errno())}}")
with open("/proc/self/timens_offsets", "w") as offsets:
    offsets.write("monotonic {seconds} 0\\nboottime {seconds} 0\\n")
os.execv(sys.executable, [sys.executable, "-m", "bridgectl", "run", "-c", sys.argv[1]])
"""
BEFORE_WRAP_S = (3.0, 8.0, 20.0)
"""The time for the start: at first as on a quiet machine."""


def _wall_clock_steps(stage: FaultStage, seconds: float) -> None:
    """An hour ahead at first; then back, while it runs; then it is started again, an hour before what its peer has
    heard of it."""
    path = stage.lab.folder / "clock"
    program = RUN.format(before=STEPPED.format(path=str(path)))
    path.write_text(str(HOUR_S))
    stage.began()
    _restart(stage, program)
    stage.passes(*FLOWS)
    ahead = _stamp_sent(stage)
    path.write_text("0")
    stage.hold(seconds)
    path.write_text(str(-HOUR_S))
    stage.hold(0.2)
    path.write_text("0")
    before_ns = time.monotonic_ns()
    _restart(stage, program)
    stage.over()
    stage.passes(*FLOWS)
    stage.note(f"a session with the clock an hour back {(time.monotonic_ns() - before_ns) / 1e9:.1f} s after the kill")
    stage.expect(_stamp_sent(stage) > ahead, "no handshake of ours came after the step")


def _stamp_sent(stage: FaultStage) -> str:
    (kept,) = json.loads((stage.disk / "tunnel.json").read_text()).values()
    return str(kept["sent"])


def _restart(stage: FaultStage, program: str) -> None:
    stage.gateway.signal(signal.SIGKILL)
    stage.gateway.wait()
    stage.start_gateway(program)


def _forty_nine_days(stage: FaultStage, seconds: float) -> None:
    """The daemon begins shortly before its clock shows 2^32 ms, and forwards through that moment."""
    try:
        run(["unshare", "--time", "true"])
    except CommandFailed as refused:
        raise Impossible(f"there are no time namespaces here: {refused}") from refused
    stage.began()
    for before_s in BEFORE_WRAP_S:
        offset_s = int(WRAP_S - time.monotonic() - before_s)
        at_s = WRAP_S - offset_s
        _restart(stage, RUN.format(before=OLD.format(seconds=offset_s)))
        stage.over()
        stage.passes(*FLOWS)
        if time.monotonic() < at_s:
            break
    left_s = at_s - time.monotonic()
    stage.expect(left_s > 0, "it did not start soon enough to see its clock pass 2^32 ms")
    stage.note(f"it forwarded {left_s:.1f} s before its clock showed 2^32 ms")
    stage.until(lambda: time.monotonic() > at_s + seconds, "its clock shows more")
    stage.passes(*FLOWS)


CASES = (
    Case(
        "wall-clock",
        "the wall clock steps an hour back, and forward, and back over a restart",
        _wall_clock_steps,
        seconds=130.0,
        short_s=0.3,
        drops=HANDSHAKE | WAITING,
        restarts=True,
        renews=True,
    ),
    Case(
        "uptime",
        "the clock of timers passes 2^32 ms (49.7 days)",
        _forty_nine_days,
        seconds=20.0,
        short_s=0.5,
        drops=HANDSHAKE | WAITING,
        restarts=True,
        renews=True,
    ),
)
