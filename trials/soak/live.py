"""`python -m trials.soak.live [--minutes 30] [-j]`: the real daemon under traffic that comes and goes, and what it
keeps of it.

The whole topology with a second instance of ours as the tunnel's other end. Hosts begin and end connections all the
time (`trials.traffic.churn`), from outside strangers knock; addresses and MAC addresses of the LAN change, lists are
reloaded every minute, captures begin and end, clients of the control socket come and go, questions fork. Every few
seconds both daemons are asked for their counters, and looked at from outside: resident memory, descriptors, threads,
children.

It fails where the law of `bridge.walk.balance` is broken at any moment, memory grows once links are as many as their
timers let them be, a descriptor, a thread or a child too many is there at the end, or a link or fragment stays.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from bridge.control.client import ControlError, request, stream
from bridge.walk import balance
from lab.private import Impossible
from lab.process import CommandFailed, LabProcess
from lab.second import SecondInstance
from lab.topology import HOSTS, OFFLOADED, TAP0, TAP1, TUN0, TUNNELLED, VPN_ALIAS, Lab, topology

SAMPLE_S = 3.0
REST_S = 40.0
"""For what waits to be given up: fragments take 15 s, unanswered ARP requests 3."""
SETTLED_S = 480.0
"""By then links end as fast as others begin: the longest of their timers that this traffic meets is 300 s."""
_MOST_GROWTH_BYTES = 1 << 20
_FORWARD = '[[alias.forward]]\non = "tap1"\nprotocol = "tcp"\noutside_port = 8080\ninside = "192.168.200.3:7777"\n'
_GROWN = ("descriptors", "threads", "children")
_BUGS = ("a bug in the gateway", "Traceback", "the warden has ended")
"""Words that no line of a daemon's log may hold."""


class GatewaySample(NamedTuple):
    """One daemon at one moment; `held` frames wait in it, `children` are those that answer. Sizes in bytes."""

    at_s: float
    rss_bytes: int
    anonymous_bytes: int
    pss_bytes: int
    descriptors: int
    threads: int
    children: int
    zombies: int
    links: int
    flows: int
    held: int
    packets: int


def looked_at(daemon: LabProcess, socket_path: Path, at_s: float) -> tuple[GatewaySample, dict[str, Any]]:
    """A sample of a daemon, and its counters."""
    proc = Path(f"/proc/{daemon.pid}")
    sizes = _numbers(proc / "smaps_rollup", ("Rss", "Anonymous", "Pss"))
    children = [
        pid for pid in (proc / "task" / str(daemon.pid) / "children").read_text().split() if not _is_warden(pid)
    ]
    stats = request(socket_path, "stats")
    sample = GatewaySample(
        round(at_s, 1),
        sizes["Rss"] * 1024,
        sizes["Anonymous"] * 1024,
        sizes["Pss"] * 1024,
        len(os.listdir(proc / "fd")),
        len(os.listdir(proc / "task")),
        len(children),
        sum(_is_zombie(pid) for pid in children),
        len(request(socket_path, "alias.show")["links"]),
        stats["fast_path"]["flows"],
        sum(fates["held"] for fates in stats["fates"].values()),
        sum(port["rx_packets"] for port in stats["ports"].values()),
    )
    return sample, stats


def _anonymous_bytes(sample: GatewaySample) -> int:
    return sample.anonymous_bytes


def _numbers(path: Path, names: Sequence[str]) -> dict[str, int]:
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0][:-1]: int(words[1]) for words in lines if words[0][:-1] in names}


def _is_warden(pid: str) -> bool:
    """Beside those that answer a question and end: it is there as long as the gateway."""
    try:
        return b"bridge.privsep.warden" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return False


def _is_zombie(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:  # it has just ended
        return False


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line through them, by least squares; 0 where there are fewer than two."""
    if len(points) < 2:
        return 0.0
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread if spread else 0.0


class LiveSoak:
    """Both daemons, what was seen of them, and what is wrong with it."""

    def __init__(self, lab: Lab, far: SecondInstance, daemons: dict[str, tuple[LabProcess, Path]], seed: int) -> None:
        self.samples: dict[str, list[GatewaySample]] = {name: [] for name in daemons}
        self.faults: list[str] = []
        self.said: dict[str, Any] = {}
        self.actions = 0
        self._lab, self._far, self._daemons = lab, far, daemons
        self._rng = random.Random(seed)
        self._began = time.monotonic()
        self._captures: list[Any] = []
        self._extra = 0
        self._rest_from_s = float("inf")

    @property
    def elapsed_s(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began

    def sample(self, *, at_rest: bool = False) -> None:
        """Look at both daemons. In motion, other threads may repeat a frame at this very moment."""
        for name, (daemon, socket_path) in self._daemons.items():
            sample, stats = looked_at(daemon, socket_path, self.elapsed_s)
            self.samples[name].append(sample)
            says = balance.difference(balance.accounts_of(stats), at_rest=at_rest)
            if says:
                self.faults.append(f"{name} after {self.elapsed_s:.0f} s: {says}")
            if stats["drops"]["walk.fault"]:
                self.faults.append(f"{name} after {self.elapsed_s:.0f} s: {stats['drops']['walk.fault']} walk.fault")

    # Events beside the traffic

    def act(self) -> None:
        """One thing that an operator or the LAN does."""
        self.actions += 1
        self._rng.choice((self._ask, self._ask, self._trace, self._capture, self._neighbours, self._address))()

    def reload(self) -> None:
        """Another list: some of what was offloaded goes by the tunnel from now on, or comes back."""
        extra = self._rng.sample(range(1, 250), 40)
        text = "".join(f"203.{number}.0.0/16\n" for number in extra)
        own = "114.114.0.0/16\n" if self._rng.random() < 0.7 else ""
        (self._lab.folder / "offload.txt").write_text(own + text)
        self._lab.ask("reload", force=True)  # the list may be half of the last one
        request(self._far.socket_path, "reload")

    def _ask(self) -> None:
        for command in self._rng.sample(("arp.show", "flows", "peers", "route.show", "alias.show"), 2):
            self._lab.ask(command)

    def _trace(self) -> None:
        """Answered by a child."""
        packet = bytes.fromhex("450000200001000040110000c0a8c8037272727213880035000c0000") + b"soak"
        header = bytearray(packet[:20])
        total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, 20, 2))
        total = (total & 0xFFFF) + (total >> 16)
        header[10:12] = (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
        try:
            self._lab.ask("trace", port="tap0", packet=(bytes(header) + packet[20:]).hex())
        except ControlError as refused:
            self.said[f"trace: {refused.message}"] = self.said.get(f"trace: {refused.message}", 0) + 1

    def _capture(self) -> None:
        """Begin a live capture, or end one: some are hung up on."""
        if len(self._captures) >= 3 or (self._captures and self._rng.random() < 0.5):
            self._captures.pop(self._rng.randrange(len(self._captures))).close()
            return
        records = stream(self._lab.socket_path, "capture", {"port": self._rng.choice(("tap0", "tap1", "vpn"))})
        next(records)
        self._captures.append(records)

    def _neighbours(self) -> None:
        """lan4 gets another MAC address; the operator forgets what was learned."""
        mac = "02:bb:00:00:00:" + f"{self._rng.randrange(256):02x}"
        lan4 = self._lab.namespaces["lan4"]
        lan4.ip(f"link set eth0 address {mac}")
        lan4.ip(f"route replace default via {TAP0}")
        if self._rng.random() < 0.3:
            self._lab.ask("arp.flush")

    def _address(self) -> None:
        """A host comes with an address of its own, and the one before goes."""
        lan3 = self._lab.namespaces["lan3"]
        if self._extra:
            lan3.ip(f"addr del 192.168.200.{self._extra}/24 dev eth0")
        self._extra = self._rng.randrange(20, 250)
        lan3.ip(f"addr add 192.168.200.{self._extra}/24 dev eth0")
        lan3.python("-m", "trials.soak.live", "--as", f"192.168.200.{self._extra}", check=False)

    # The end

    def rest(self) -> None:
        """Nothing comes any more: what waits ends, what was opened is closed, and links go with the operator's word."""
        for records in self._captures:
            records.close()
        self._captures.clear()
        self._rest_from_s = self.elapsed_s
        deadline = time.monotonic() + REST_S
        while True:
            self._lab.ask("alias.flush")
            self.sample(at_rest=True)
            left = [f"{name}: {fault}" for name in self.samples for fault in self._left(name)]
            if not left:
                return
            if time.monotonic() > deadline:
                self.faults += left
                return
            time.sleep(0.5)

    def _left(self, name: str) -> Iterator[str]:
        first, last = self.samples[name][0], self.samples[name][-1]
        for what in _GROWN:
            before, after = 0 if what == "children" else getattr(first, what), getattr(last, what)
            if after > before:
                yield f"{before} {what} at the start, {after} at rest: {' '.join(self._descriptors(name))}"
        if last.zombies:
            yield f"{last.zombies} zombies"
        if last.held:
            yield f"{last.held} frames are held and nothing comes"
        if name == "gateway" and last.links > 1:  # one static forward
            yield f"{last.links} links after a flush"

    def _descriptors(self, name: str) -> list[str]:
        found = []
        for path in Path(f"/proc/{self._daemons[name][0].pid}/fd").iterdir():
            with suppress(OSError):  # it has just been closed
                found.append(os.readlink(path))
        return sorted(found)

    def judge(self) -> None:
        """Memory once links have settled, or as far as they have: what the line through the least of each minute grows
        by: between these a reload or a burst has its moment. The anonymous part: pages of the link file, a mapped
        file, come one by one up to its size."""
        for name in self.samples:
            settled = self._settled(name)
            least = [min(minute, key=_anonymous_bytes) for _, minute in groupby(settled, lambda one: one.at_s // 60)]
            rate = slope([(one.at_s, one.anonymous_bytes) for one in least])
            lasted_s = settled[-1].at_s - settled[0].at_s if settled else 0
            if rate * lasted_s > _MOST_GROWTH_BYTES * (1 if settled[0].at_s > SETTLED_S else 4):
                self.faults.append(f"{name}: anonymous memory grows by {rate * 3600 / 1e6:.2f} MB an hour")

    def document(self) -> dict[str, Any]:
        """All of it, for machines."""
        return {
            "elapsed_s": round(self.elapsed_s),
            "actions": self.actions,
            "faults": self.faults,
            "said": self.said,
            "slopes_per_hour": {
                name: {
                    what: round(slope([(one.at_s / 3600, getattr(one, what)) for one in self._settled(name)]), 1)
                    for what in ("rss_bytes", "anonymous_bytes", "pss_bytes", "descriptors", "links", "flows")
                }
                for name in self.samples
            },
            "samples": {name: [one._asdict() for one in samples] for name, samples in self.samples.items()},
        }

    def _settled(self, name: str) -> list[GatewaySample]:
        samples = [one for one in self.samples[name] if one.at_s < self._rest_from_s]
        return [one for one in samples if one.at_s > min(SETTLED_S, samples[-1].at_s / 2)]

    @property
    def lasted(self) -> bool:
        """Whether it went on for longer than links take to settle: slopes mean something from then on."""
        return all(samples[-1].at_s / 2 > SETTLED_S for samples in self.samples.values())

    def table(self) -> str:
        """First, last, least, most and, where it `lasted`, the slope an hour of each, for people."""
        lines = []
        for name, samples in self.samples.items():
            lines.append(f"\n{name}, {len(samples)} samples in {samples[-1].at_s:.0f} s")
            lines.append(f"{'':16}{'FIRST':>14}{'LAST':>14}{'LEAST':>14}{'MOST':>14}{'SLOPE/HOUR':>14}")
            for what in GatewaySample._fields[1:]:
                values = [getattr(one, what) for one in samples]
                rate = slope([(one.at_s / 3600, getattr(one, what)) for one in self._settled(name)])
                row = (values[0], values[-1], min(values), max(values))
                lines.append(
                    f"{what:16}"
                    + "".join(f"{value:14,}" for value in row)
                    + (f"{rate:14,.0f}" if self.lasted else f"{'-':>14}")
                )
        return "\n".join(lines)


@contextmanager
def _churning(lab: Lab, seed: int, rate: float) -> Iterator[dict[str, LabProcess]]:
    """Hosts inside that talk to the far ends and to each other, and strangers outside that knock."""
    inside = (OFFLOADED, TUNNELLED)
    hosts = {
        "lan3": (rate, *inside, HOSTS["lan4"], TAP0),
        "lan4": (rate, *inside, HOSTS["lan3"]),
        "gw": (rate / 2, *inside, HOSTS["lan3"]),
        "isp": (rate / 4, TAP1, TAP1),
        "exit": (rate / 4, VPN_ALIAS, TUN0),
    }
    with ExitStack() as stack:
        running = {}
        for number, (name, (pace, *remotes)) in enumerate(hosts.items()):
            words = ("-m", "trials.traffic.churn", str(seed + number), str(pace), *map(str, remotes))
            running[name] = lab.namespaces[name].start_python(*words, listens=True)
            stack.callback(running[name].stop)
        for process in running.values():
            process.line()
        yield running


def soak(minutes: float, *, seed: int = 1, rate: float = 15.0, tell: Callable[[str], None] = print) -> LiveSoak:
    """Run it for so long. `rate`: exchanges that each LAN host begins in a second. `Impossible` where there is no
    lab."""
    with topology() as lab, ExitStack() as stack:
        far = SecondInstance(lab)
        stack.callback(far.stop)
        lab.configure(far.configuration(keepalive=25) + _FORWARD)
        for name, address in {"isp": OFFLOADED, "exit": TUNNELLED, **HOSTS}.items():
            server = lab.namespaces[name].start_python("-m", "trials.traffic.churn", "serve", address)
            stack.callback(server.stop)
            server.line()
        other = far.start()
        gateway = lab.start_gateway()
        daemons = {"gateway": (gateway, lab.socket_path), "exit": (other, far.socket_path)}
        for remote in (OFFLOADED, TUNNELLED):  # what is made once, on the first occasion, is no leak
            lab.namespaces["lan3"].python("-m", "trials.traffic.churn", "once", remote)
        lab.ask("route.show")
        found = LiveSoak(lab, far, daemons, seed)
        found.sample()
        end = time.monotonic() + minutes * 60
        next_sample, next_reload, told = time.monotonic(), time.monotonic() + min(60, minutes * 15), 0.0
        with _churning(lab, seed, rate) as running:
            while (now := time.monotonic()) < end:
                if now >= next_sample:
                    found.sample()
                    next_sample = now + SAMPLE_S
                    found.act()
                if now >= next_reload:
                    found.reload()
                    next_reload = now + min(60, minutes * 15)
                if found.elapsed_s - told >= 60:
                    told = found.elapsed_s
                    tell(f"{told:.0f} s: {found.samples['gateway'][-1]}")
                time.sleep(min(0.1, max(end - time.monotonic(), 0)))
            for name, process in running.items():
                process.hang_up()
                found.said[name] = process.document()
        found.rest()
        found.judge()
        for name, (daemon, _) in daemons.items():
            log = daemon.errors()
            bugs = [line for line in log.splitlines() if any(word in line for word in _BUGS)]
            found.faults += [f"{name}: {line}" for line in bugs[:5]]
        if lab.stop_gateway():
            found.faults.append("the gateway did not end with exit code 0")
        return found


def _as(address: str) -> int:
    """A host under another address of the LAN asks the world something."""
    import socket  # noqa: PLC0415 - in the child alone

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.bind((address, 0))
        for remote in (OFFLOADED, TUNNELLED):
            asking.sendto(b"hello", (remote, 7777))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """1 where anything is wrong, 2 where there can be no lab."""
    parser = argparse.ArgumentParser(prog="python -m trials.soak.live", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=15.0, help="exchanges of a LAN host in a second")
    parser.add_argument("-j", "--json", action="store_true", help="one JSON document")
    parser.add_argument("--as", dest="address", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.address:
        return _as(options.address)
    try:
        found = soak(
            options.minutes,
            seed=options.seed,
            rate=options.rate,
            tell=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except Impossible as reason:
        print(f"no lab here: {reason}", file=sys.stderr)
        return 2
    except CommandFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(found.document()))
    else:
        flat = "memory is flat." if found.lasted else "and it was too short to tell whether memory grows."
        print(found.table())
        print(f"\nsaid: {json.dumps(found.said)}")
        print("\n".join(found.faults) or "\nNothing was lost, nothing stayed, " + flat)
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
