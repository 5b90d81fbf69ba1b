"""The contestants that take turns in the gateway's place: ours, the kernel, and programs from Debian's packages.

On the offload path a LAN host (`lan3`) talks to 114.114.114.114 behind the ISP router; on the tunnel path to 8.8.8.8
behind the exit (`trials.bench.tunnels`). Everybody starts on a lab that was just built for that turn, with the same
bridges and cables, in the defaults of its package unless `note` says otherwise; when the turn ends nothing of it is
left.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from bridge.control.client import ControlError, NobodyListens
from bridge.ports.base import PortError
from bridge.ports.namespace import entered
from lab.demo import prefix_list
from lab.namespace import Namespace
from lab.process import CommandFailed, LabProcess
from lab.topology import CONFIGURATION, HOSTS, OFFLOADED, ROUTER, TAP0, TAP1, Lab

OFFLOAD, TUNNEL = "offload", "tunnel"
PREFIXES = 4604
FAILURES = (
    CommandFailed,
    ControlError,
    NobodyListens,
    PortError,
    OSError,
    ValueError,
    LookupError,
    subprocess.SubprocessError,
)
"""The errors that end one contestant or one measurement, while the rest of a long run goes on. Each is reported."""
_READY_S = 15.0
_POLL_S = 0.02
LIMITS = "\n[alias]\nmax_links_per_host = 65536\n"  # all load comes from one host
_UPLINK = "br1"


class Running(NamedTuple):
    """A contestant that forwards: the processes that it consists of, and who talks through it to whom."""

    near: tuple[LabProcess, ...] = ()
    """In the gateway's place; none: the kernel does it, and the whole machine is counted."""
    far: tuple[LabProcess, ...] = ()
    """At the tunnel's other end."""
    client: str = "lan3"
    server: str = "isp"
    target: str = OFFLOADED
    says: str = ""
    """Of ours: what `bridgectl stats` says is in use."""


class Contestant(NamedTuple):
    """`programs` are what it needs, `package` where they come from; `set_up` starts it in a lab."""

    name: str
    path: str
    programs: tuple[str, ...]
    package: str
    version: tuple[str, ...]
    """The command that prints it, where its package does not say."""
    note: str
    set_up: Callable[[Lab, ExitStack], Running]

    def absent(self) -> str | None:
        """Why it cannot be had here; None where it can."""
        missing = [program for program in self.programs if shutil.which(program) is None]
        if missing:
            return f"{' and '.join(missing)} not installed (Debian: {self.package}; scripts/bench-peers installs it)"
        if self.name == OURS and not is_compiled():
            return "nothing was compiled here (gcc, Python.h): `ours, plain` is what runs"
        return None

    def told_version(self) -> str:
        """One line: what its package says, else what it says itself."""
        asked = [("dpkg-query", "-W", "-f", "${Package} ${Version}", self.package.split()[0])] if self.package else []
        for words in (*asked, self.version):
            if words and shutil.which(words[0]):
                done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
                if done.returncode == 0 and done.stdout.strip():
                    return done.stdout.strip().splitlines()[0]
        return ""


OURS, PLAIN, KERNEL = "ours", "ours-plain", "kernel"


def is_compiled() -> bool:
    """Whether the compiled parts were built here, all of them."""
    return all(find_spec(name) is not None for name in ("flow.fast", "bridge.ports.burst", "tunnel.burst"))


def fast(name: str) -> dict[str, str]:
    """The environment of one of ours, complete, so that nothing is inherited."""
    return {"TAPBRIDGE_FAST": "0" if name == PLAIN else "1"}


def in_use(lab: Lab) -> str:
    """The gateway's own words about its fast path and its cipher."""
    told = lab.ask("stats")["fast_path"]
    forwarding = "compiled" if told["compiled"] else "plain"
    return f"forwarding {forwarding}" + (f", sealing {told['cipher']}" if told["cipher"] else "")


def until(holds: Callable[[], bool], what: str, *processes: LabProcess) -> None:
    """Wait until something holds; `CommandFailed` when it does not in time, or one of the processes ends before."""
    deadline = time.monotonic() + _READY_S
    while not holds():
        for process in processes:
            if not process.is_running:
                raise CommandFailed(f"{' '.join(process.words)} ended\n{process.errors()}")
        if time.monotonic() > deadline:
            told = "\n".join(process.errors() for process in processes)
            raise CommandFailed(f"no {what} within {_READY_S:g} s\n{told}")
        time.sleep(_POLL_S)


def until_answered(lab: Lab, client: str, target: str, *processes: LabProcess) -> None:
    """Wait until an echo request from the client comes back."""

    def answered() -> bool:
        return " 0% packet loss" in lab.namespaces[client].run("ping", "-n", "-c1", "-W1", target, check=False)

    until(answered, f"answer to {client} from {target}", *processes)


def started(lab: Lab, stack: ExitStack, where: str, *words: str) -> LabProcess:
    """A program in one of the lab's namespaces until the turn ends."""
    process = lab.namespaces[where].start(*words)
    stack.callback(process.stop)
    return process


# --- ours ----------------------------------------------------------------------------------------------------------


def offload_configuration() -> str:
    """The gateway without a tunnel, so that nothing but the offload path is there."""
    return CONFIGURATION.split("[tun0]")[0] + CONFIGURATION[CONFIGURATION.index("[offload]") :] + LIMITS


def _ours(name: str) -> Callable[[Lab, ExitStack], Running]:
    def set_up(lab: Lab, stack: ExitStack) -> Running:
        lab.configure(offload_configuration(), prefix_list(PREFIXES))
        gateway = lab.start_gateway(fast(name))
        stack.callback(lab.remove_gateway)
        return Running((gateway,), says=in_use(lab))

    return set_up


# --- the kernel ----------------------------------------------------------------------------------------------------


def kernel_forwards(lab: Lab, where: str = "gw") -> None:
    """Switch forwarding on in one namespace."""
    with entered(lab.namespaces[where].name):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def kernel_masquerades(lab: Lab, device: str) -> None:
    """Source NAT by nftables for what leaves by that device of the gateway's machine."""
    gw = lab.namespaces["gw"]
    gw.run("nft", "add", "table", "ip", "bench")
    gw.run("nft", "add chain ip bench out { type nat hook postrouting priority srcnat ; }")
    gw.run("nft", "add", "rule", "ip", "bench", "out", "oifname", device, "masquerade")


def kernel_owns(lab: Lab, *, uplink: bool = True) -> None:
    """Give the gateway's addresses to the bridges: its machine's kernel answers for them."""
    gw = lab.namespaces["gw"]
    gw.ip(f"addr add {TAP0}/24 dev br0")
    if uplink:
        gw.ip(f"addr add {TAP1}/24 dev {_UPLINK}")
        gw.ip(f"route add default via {ROUTER}")


def _kernel(lab: Lab, _stack: ExitStack) -> Running:
    kernel_owns(lab)
    kernel_forwards(lab)
    kernel_masquerades(lab, _UPLINK)
    return Running()


# --- sockets instead of packets: pasta, slirp4netns ----------------------------------------------------------------


def _guest(lab: Lab, stack: ExitStack) -> Namespace:
    """A namespace with nothing but what a contestant puts into it, and a gateway's machine with its own uplink."""
    guest = lab.namespaces["guest"] = Namespace("guest")
    stack.callback(lab.namespaces.pop, "guest")
    stack.callback(guest.remove)
    kernel_owns(lab)
    with entered(lab.namespaces["gw"].name):  # their echo requests leave by unprivileged sockets
        Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 0")
    return guest


def _pasta(lab: Lab, stack: ExitStack) -> Running:
    guest = _guest(lab, stack)
    words = ["pasta", "--runas", "0", "--foreground", "--config-net", "--quiet", "--ipv4-only"]
    words += ["--interface", _UPLINK, "--ns-ifname", "eth0"]
    words += ["--address", HOSTS["lan3"], "--netmask", "24", "--gateway", TAP0]
    words += ["--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"]
    process = started(lab, stack, "gw", *words, "--netns", f"/run/netns/{guest.name}")
    until(lambda: "default" in guest.ip("route"), "route of pasta's", process)
    return Running((process,), client=guest.name)


def _slirp4netns(lab: Lab, stack: ExitStack) -> Running:
    guest = _guest(lab, stack)
    words = ["slirp4netns", "--configure", "--disable-host-loopback", "--disable-dns", "--netns-type=path"]
    process = started(lab, stack, "gw", *words, f"/run/netns/{guest.name}", "tap0")
    until(lambda: "default" in guest.ip("route"), "route of slirp4netns's", process)
    return Running((process,), client=guest.name)


_NO_LAN = "cannot serve a LAN: its tap stands in the LAN host itself, so there is one bridge and one cable less"

CONTESTANTS = (
    Contestant(OURS, OFFLOAD, ("ip",), "", (), "compiled, taps in Linux bridges", _ours(OURS)),
    Contestant(PLAIN, OFFLOAD, ("ip",), "", (), "TAPBRIDGE_FAST=0, taps in Linux bridges", _ours(PLAIN)),
    Contestant(
        KERNEL,
        OFFLOAD,
        ("nft",),
        "nftables",
        (),
        "forwarding and nftables masquerade between the same bridges, offloads on; CPU is the whole machine's",
        _kernel,
    ),
    Contestant("pasta", OFFLOAD, ("pasta",), "passt", ("pasta", "--version"), f"MTU 65520; {_NO_LAN}", _pasta),
    Contestant(
        "slirp4netns",
        OFFLOAD,
        ("slirp4netns",),
        "slirp4netns",
        ("slirp4netns", "--version"),
        f"MTU 1500; {_NO_LAN}",
        _slirp4netns,
    ),
)
