"""One measurement: callers on a LAN host, servers beyond the gateway, and the gateway's own account of it.

The gateway runs with its default limits, so that a host's bound of links and the policing of the walk are part of the
figure. SYNs that were sent again are counted by the kernel of the callers' namespace (`TCPSynRetrans`): a SYN or its
answer was lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bridge.ports.namespace import entered
from lab.demo import prefix_list
from lab.namespace import Namespace
from lab.process import CommandFailed, LabProcess
from lab.second import SecondInstance
from lab.topology import TUNNELLED, Lab, topology
from trials.bench import usage
from trials.bench.contestants import LIMITS, PREFIXES, Running, offload_configuration, until_answered
from trials.connections.ends import call, calls_of, compiled, serve

CALLERS = 32
COUNTED = ("walk.policed", "alias.host_limit")
_BUSY = 0.85
"""A process that uses more of a core than this, or of all cores together, is taken as the bound."""
_SETTINGS = {
    "net/ipv4/ip_local_port_range": "1024 65535",
    "net/ipv4/tcp_tw_reuse": "1",  # a caller closes first: its port rests a minute otherwise
}


@dataclass(frozen=True, slots=True)
class Measured:
    """New connections through one path. CPU in microseconds a connection, of the near gateway and of the tunnel's other
    end (0 where there is none); times of `connect` in milliseconds; drops of the gateway by reason; cores in use by
    the gateway, the other end, the callers and the servers, and the part of them that bounds the rate (`bound_by`)."""

    path: str
    callers: int
    seconds: float
    done: int
    failed: int
    waiting: int
    rate: float
    cpu_us: float
    far_cpu_us: float
    connect_p50_ms: float
    connect_p99_ms: float
    connect_longest_ms: float
    syns_lost: int
    drops: Mapping[str, int]
    cores: Mapping[str, float]
    bound_by: str


def through_tap1(lab: Lab, stack: ExitStack) -> Running:
    """The gateway alone; the servers are behind the ISP router."""
    lab.configure(offload_configuration().removesuffix(LIMITS), prefix_list(PREFIXES))
    gateway = lab.start_gateway()
    stack.callback(lab.remove_gateway)
    running = Running((gateway,))
    until_answered(lab, running.client, running.target, gateway)
    return running


def through_tunnel(lab: Lab, stack: ExitStack) -> Running:
    """The gateway and a second instance at the tunnel's other end; the servers are on the exit's machine."""
    far = SecondInstance(lab)
    lab.configure(far.configuration(), prefix_list(PREFIXES))
    stack.callback(far.stop)
    far_process = far.start()
    gateway = lab.start_gateway()
    stack.callback(lab.remove_gateway)
    until_answered(lab, "lan3", TUNNELLED, gateway)
    return Running((gateway,), (far_process,), server="exit", target=TUNNELLED)


PATHS: dict[str, Callable[[Lab, ExitStack], Running]] = {"tap1": through_tap1, "tunnel": through_tunnel}


def measured(path: str, seconds: float, callers: int = CALLERS) -> Measured:
    """Build a lab, run the load through the path for so many seconds, and take everything down.

    Raises `lab.private.Impossible` where there is no lab, `NoCompiler` where there is no gcc, `CommandFailed` where an
    end fails.
    """
    with topology() as lab, ExitStack() as stack:
        program = compiled(lab.folder)
        running = PATHS[path](lab, stack)
        server = serve(program, lab.namespaces[running.server], running.target)
        stack.callback(server.stop)
        return _measured(lab, running, program, server, path, seconds, callers)


def _measured(
    lab: Lab, running: Running, program: Path, server: LabProcess, path: str, seconds: float, callers: int
) -> Measured:
    client = lab.namespaces[running.client]
    with entered(client.name):
        for name, value in _SETTINGS.items():
            Path("/proc/sys", name).write_text(value)
    ends = {"gateway": running.near, "other end": running.far, "servers": (server,)}
    before, busy_s, drops, again = _cpu(ends), usage.machine().busy_s, _drops(lab), _syns_again(client)
    calling = call(program, client, running.target, callers, seconds)
    try:
        calls = calls_of(calling, seconds)
    finally:
        calling.stop()
    spent = {name: value - before[name] for name, value in _cpu(ends).items()} | {"callers": calls.cpu_s}
    busy_s = usage.machine().busy_s - busy_s
    if not calls.done:
        raise CommandFailed(f"no connection through {path}; {calls.failed} failed, {calls.waiting} callers wait")
    return Measured(
        path=path,
        callers=callers,
        seconds=calls.seconds,
        done=calls.done,
        failed=calls.failed,
        waiting=calls.waiting,
        rate=calls.done / calls.seconds,
        cpu_us=spent["gateway"] / calls.done * 1e6,
        far_cpu_us=spent["other end"] / calls.done * 1e6,
        connect_p50_ms=calls.p50_us / 1e3,
        connect_p99_ms=calls.p99_us / 1e3,
        connect_longest_ms=calls.longest_us / 1e3,
        syns_lost=_syns_again(client) - again,
        drops={reason: count - drops[reason] for reason, count in _drops(lab).items()},
        cores={name: value / calls.seconds for name, value in spent.items()},
        bound_by=bound_by({name: value / calls.seconds for name, value in spent.items()}, busy_s / calls.seconds),
    )


def bound_by(cores: Mapping[str, float], busy: float, there: int | None = None) -> str:
    """The part that bounds the rate: a process that uses nearly a core; else all cores (`busy` of `there` are in use),
    by these processes or by others; else none, and callers wait for answers that were lost or that are late."""
    name = max(cores, key=lambda one: cores[one])
    if cores[name] >= _BUSY:
        return name
    if busy < _BUSY * (there or os.cpu_count() or 1):
        return "callers that wait"
    return "all cores" if sum(cores.values()) >= busy / 2 else "other programs"


def _cpu(ends: Mapping[str, tuple[LabProcess, ...]]) -> dict[str, float]:
    return {
        name: usage.cpu_seconds(usage.with_children(process.pid for process in processes))
        for name, processes in ends.items()
    }


def _drops(lab: Lab) -> dict[str, int]:
    drops = lab.ask("stats")["drops"]
    return {reason: int(drops[reason]) for reason in COUNTED}


def _syns_again(where: Namespace) -> int:
    """SYNs that the namespace's kernel has sent again so far (/proc/net/netstat, names above numbers)."""
    names, numbers = (line.split() for line in where.run("cat", "/proc/net/netstat").splitlines()[:2])
    return int(numbers[names.index("TCPSynRetrans")])
