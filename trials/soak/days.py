"""`python -m trials.soak.days [--days 20] [--seed 1] [--busy 1.0]`: a gateway through many days under a virtual clock.

Hosts come in the morning and go at night, and addresses get other owners; they look names up, open connections that
end by FIN, reset or silence, ping, meet dead ends, share files with many others, lose fragments. Strangers scan, peers
are lost and found, lists change, ARP fails, ports run out. Nobody begins anything between one and five in the night.

Every simulated hour the law of `bridge.walk.balance` is checked, every link against its timer, and every frame against
the count of the world outside. At the end of each night every store must be as empty as it was before the first day,
and there must not be more objects than after the first night.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bridge.walk import balance
from flow.table import HARVEST_S
from trials.fuzz.hostile import mutated
from trials.fuzz.targets.flow import packet
from trials.soak.live import slope
from trials.soak.world import (
    ALIAS,
    BY_JAPAN,
    CONFIGURATION,
    GATEWAY,
    HOST,
    LAN,
    OFFLOADED,
    REFUSES,
    SERVER,
    SILENT,
    TAP1,
    TUNNELLED,
    UNREACHABLE,
    Script,
    SoakWorld,
    arp,
    fragments,
)
from wire.ipv4 import ICMP, TCP, UDP
from wire.tcp import ACK, FIN, PSH, RST, SYN
from wire.units import SECOND_NS, seconds_ns

HOUR_S = 3600
DAY_HOURS = 24
NIGHT = range(1, 5)
"""Hours in which nobody begins anything: longer than the longest timer, 7440 s of an established connection."""
QUIET_HOUR = 4
"""At the end of it all is empty."""
CHECKS_AN_HOUR = 20
SCRIPTS_AN_HOUR = 900
"""At noon, where `busy` is 1."""
MORE_OBJECTS = 200
"""More than after the first night are a leak."""
_DEVICES = 60
_LAZY = frozenset({"_identifications", "_rate_limit", "_owners", "_resting", "_returning", "_spent"})
"""Stores that are bounded and forget when they are asked next, not by a timer of their own."""


class Night(NamedTuple):
    """The entries that are left at the end of a night."""

    day: int
    frames: int
    objects: int
    rss_bytes: int
    most_links: int


class Unfit(AssertionError):
    """Something stayed, or is not as it must be."""


class SimulatedSoak:
    """The days. `busy`: how much of it happens; `tell` hears a line at the end of each night."""

    def __init__(
        self, folder: Path, seed: int, busy: float, slack_s: float, tell: Callable[[str], None] = lambda line: None
    ) -> None:
        self.world = SoakWorld(folder, seed, slack_s)
        self.rng = random.Random(seed + 1)
        self.nights: list[Night] = []
        self.hours = 0
        self.most_links = 0
        self._busy, self._tell = busy, tell
        self._macs = [bytes((2, 0xCC, 0, 0, 0, number)) for number in range(_DEVICES)]
        self._base = sizes(self.world.gateway)
        self._objects: Counter[str] = Counter()
        self._timeouts: dict[int, int] = {}

    def run(self, days: float) -> None:
        """So many days from midnight on, and then a quiet night. `Unfit`, `Unbalanced` where anything is wrong."""
        for hour in range(round(days * DAY_HOURS)):
            self._hour(hour % DAY_HOURS)
        if self.hours % DAY_HOURS != QUIET_HOUR + 1:
            while self.hours % DAY_HOURS != QUIET_HOUR + 1:
                self._hour(QUIET_HOUR if self.hours % DAY_HOURS == QUIET_HOUR else NIGHT[0])

    def _hour(self, hour: int) -> None:
        world, rng = self.world, self.rng
        end = world.now + HOUR_S * SECOND_NS
        if hour not in NIGHT:
            share = 1 - abs(hour - 13) / 13
            for _ in range(round(SCRIPTS_AN_HOUR * self._busy * max(share, 0.05))):
                world.begin(self._script(), rng.uniform(0, HOUR_S * 0.9))
            self._operate(hour)
        for step in range(CHECKS_AN_HOUR):
            world.run_until(end - (CHECKS_AN_HOUR - 1 - step) * HOUR_S // CHECKS_AN_HOUR * SECOND_NS)
            self._check()
        self.hours += 1
        if hour == QUIET_HOUR:
            self._end_of_night()

    # Events of a day

    def _script(self) -> Script:
        kinds: list[tuple[Callable[[], Script], int]] = [
            (self._arrive, 3),
            (self._leave, 2),
            (self._name, 30),
            (self._connection, 30),
            (self._stream, 8),
            (self._pings, 6),
            (self._share, 2),
            (self._large, 6),
            (self._stranger, 10),
            (self._visitor, 3),
            (self._own_host, 6),
            (self._wrong, 6),
            (self._damaged, 4),
            (self._dead_neighbour, 2),
        ]
        scripts, weights = zip(*kinds, strict=True)
        script: Callable[[], Script] = self.rng.choices(scripts, weights)[0]
        return script()

    def _operate(self, hour: int) -> None:
        """Actions of the operator, and accidents of the line."""
        world, rng = self.world, self.rng
        if hour % 6 == 5:
            world.begin(self._reload(), rng.uniform(0, HOUR_S))
        if hour in (9, 15):
            world.begin(self._node_lost(), rng.uniform(0, HOUR_S))
        if hour == 11:
            world.begin(self._router_lost(), rng.uniform(0, HOUR_S))
        if hour == 20:
            world.begin(self._exhaustion(), rng.uniform(0, HOUR_S))
        if hour == 17:
            world.begin(self._flip(), rng.uniform(0, HOUR_S))

    def _pick(self) -> int | None:
        """A host that is here."""
        here = [address for address in self.world.stations if address != SERVER]
        return self.rng.choice(here) if here else None

    def _remote(self) -> int:
        network = self.rng.choice((OFFLOADED, OFFLOADED, TUNNELLED, TUNNELLED, BY_JAPAN))
        last = (
            self.rng.choice((SILENT, REFUSES, UNREACHABLE)) if self.rng.random() < 0.08 else self.rng.randrange(1, 60)
        )
        return network + last

    def _port(self) -> int:
        return self.rng.randrange(1024, 65536)

    def _arrive(self) -> Script:
        """A device gets an address, perhaps one that another had, and says so or asks for the gateway."""
        world, rng = self.world, self.rng
        address, mac = LAN + rng.randrange(10, 60), rng.choice(self._macs)
        if address not in world.stations:
            world.stations[address] = mac
            target = address if rng.random() < 0.5 else GATEWAY
            world.frame("tap0", arp(1, mac, address, bytes(6), target))
            yield 1.0

    def _leave(self) -> Script:
        address = self._pick()
        if address is not None and len(self.world.stations) > 8:
            del self.world.stations[address]
        yield from ()

    def _name(self) -> Script:
        """A question and its answer, asked again where none comes."""
        source = self._pick()
        if source is None:
            return
        ends = (source, self._port(), self._remote(), 53)
        for _ in range(self.rng.choice((1, 1, 2))):
            self.world.send("tap0", packet(UDP, ends, b"name?"))
            yield 5.0

    def _connection(self, port: str = "tap0", source: int | None = None) -> Script:
        """Opened, used, and ended in one way or another."""
        rng, send = self.rng, self.world.send
        source = self._pick() if source is None else source
        if source is None:
            return
        ends = (source, self._port(), self._remote(), 443)
        send(port, packet(TCP, ends, tcp_flags=SYN, sequence=99))
        yield 0.5
        send(port, packet(TCP, ends, tcp_flags=ACK, sequence=100, ack=501))
        for _ in range(rng.choice((1, 3, 10, 40, 200))):
            send(port, packet(TCP, ends, bytes(rng.choice((1, 100, 1400))), tcp_flags=ACK | PSH, sequence=100, ack=501))
            yield rng.expovariate(1 / rng.choice((0.05, 0.3, 5)))
        end = rng.choice((FIN, FIN, FIN, RST, None))
        if end is not None:
            send(port, packet(TCP, ends, tcp_flags=end | ACK, sequence=100, ack=501))
            yield 1.0
        if end == FIN:
            send(port, packet(TCP, ends, tcp_flags=ACK, sequence=101, ack=502))

    def _stream(self) -> Script:
        """A call, or a game: datagrams both ways for minutes."""
        source, rng = self._pick(), self.rng
        if source is None:
            return
        ends = (source, self._port(), self._remote(), 4000)
        for _ in range(rng.choice((20, 100, 400))):
            self.world.send("tap0", packet(UDP, ends, bytes(200)))
            yield rng.uniform(0.02, 1.0)

    def _pings(self) -> Script:
        source, rng = self._pick(), self.rng
        if source is None:
            return
        target = rng.choice((self._remote(), self._remote(), GATEWAY, TAP1, ALIAS))
        ends = (source, rng.randrange(1, 65536), target, 8)
        size_bytes = rng.choice((56, 56, 3000))
        for number in range(rng.choice((1, 4))):
            whole = packet(ICMP, ends, bytes(size_bytes), sequence=number, identification=rng.randrange(65536))
            for piece in fragments(whole, 1480) if size_bytes > 1480 else [whole]:
                if size_bytes < 1480 or rng.random() < 0.95:
                    self.world.send("tap0", piece)
            yield 1.0

    def _share(self) -> Script:
        """One endpoint talks with many, some of whom had never been asked."""
        source, rng = self._pick(), self.rng
        if source is None:
            return
        port = self._port()
        for _ in range(rng.choice((20, 60))):
            ends = (source, port, OFFLOADED + rng.randrange(1, 250), self._port())
            self.world.send("tap0", packet(UDP, ends, bytes(60)))
            if rng.random() < 0.3:
                stranger = (OFFLOADED + rng.randrange(1, 250), self._port(), TAP1, port)
                self.world.send("tap1", packet(UDP, stranger, bytes(60)))
            yield rng.uniform(0.1, 10.0)

    def _large(self) -> Script:
        """A datagram in fragments, in any order, some of which are lost or come twice."""
        source, rng = self._pick(), self.rng
        if source is None:
            return
        ends = (source, self._port(), self._remote(), 2049)
        pieces = fragments(
            packet(UDP, ends, bytes(rng.choice((2000, 4000, 8000))), identification=rng.randrange(65536)), 1480
        )
        if rng.random() < 0.5:
            rng.shuffle(pieces)
        for piece in pieces:
            if rng.random() > 0.1:
                for _ in range(2 if rng.random() < 0.05 else 1):
                    self.world.send("tap0", piece)
                yield 0.001

    def _stranger(self) -> Script:
        """From outside to us, who asked for nothing."""
        rng = self.rng
        port, target = rng.choice((("tap1", TAP1), ("vpn", ALIAS), ("tap1", LAN + 10)))
        remote = (OFFLOADED if port == "tap1" else TUNNELLED) + rng.randrange(100, 250)
        for _ in range(rng.choice((1, 3, 30))):
            ends = (remote, self._port(), target, self._port())
            data = packet(TCP, ends, tcp_flags=SYN) if rng.random() < 0.6 else packet(UDP, ends, b"knock")
            self.world.send(port, data)
            yield rng.choice((0.01, 3.0))

    def _visitor(self) -> Script:
        """Of the static forward; some live where the table says the tunnel is."""
        ends = (self.rng.choice((OFFLOADED, TUNNELLED)) + self.rng.randrange(100, 250), self._port(), TAP1, 8080)
        for flags, sequence, pause_s in ((SYN, 10, 0.2), (ACK, 11, 1.0), (FIN | ACK, 11, 0.2), (ACK, 12, 0.0)):
            self.world.send(
                "tap1", packet(TCP, ends, tcp_flags=flags, sequence=sequence, ack=901 if sequence > 10 else 0)
            )
            yield pause_s

    def _own_host(self) -> Script:
        """The gateway's machine has traffic of its own."""
        yield from self._connection("tun0", HOST)

    def _wrong(self) -> Script:
        """Packets that are refused: no hops left, too long, from nowhere, to nowhere, no IP at all."""
        source, rng = self._pick(), self.rng
        if source is None:
            return
        ends = (source, self._port(), self._remote(), 33434)
        mac = self.world.stations[source]
        what = rng.randrange(7)
        if what == 0:
            self.world.send("tap0", packet(UDP, ends, b"hop", ttl=1))
        elif what == 1:
            self.world.send("tap0", packet(UDP, ends, bytes(1472), flags=0x4000))
        elif what == 2:
            self.world.send("tap0", packet(UDP, (0x0A010203, *ends[1:]), b"spoofed"), mac)
        elif what == 3:
            self.world.send("tap0", packet(UDP, (source, ends[1], 0x0A000001, 9), b"private"))
        elif what == 4:
            self.world.frame("tap0", bytes.fromhex("333300000001") + mac + b"\x86\xdd" + bytes(60))
        elif what == 5:
            self.world.send("tap0", packet(TCP, (source, ends[1], GATEWAY, 22), tcp_flags=SYN))
        else:
            self.world.send("tap0", packet(UDP, (source, ends[1], GATEWAY, 53), b"closed"))
        yield from ()

    def _damaged(self) -> Script:
        """Anything at all, at any port."""
        rng = self.rng
        ends = (self._pick() or SERVER, self._port(), self._remote(), 53)
        for _ in range(10):
            data = packet(rng.choice((TCP, UDP, ICMP)), ends, bytes(40))
            port = rng.choice(("tap0", "tap1", "tun0", "vpn", "vpn:jp"))
            self.world.send(port, bytes(mutated(data, rng)))
            yield 0.01

    def _dead_neighbour(self) -> Script:
        """Somebody wants a LAN host that is not there: three requests, and 3/1."""
        for number in range(12):
            ends = (HOST, self._port(), LAN + 200 + self.rng.randrange(8), 9)
            self.world.send("tun0", packet(UDP, ends, bytes(1000 if number % 3 else 3000)))
            yield self.rng.choice((0.01, 0.5))

    def _reload(self) -> Script:
        """Other lists, other peers: some of what was offloaded is not any more."""
        rng, world = self.rng, self.world
        world.list_prefixes(f"203.{number}.0.0/16" for number in rng.sample(range(250), 20))
        text = CONFIGURATION
        if rng.random() < 0.5:
            text = text.replace("[peer.jp]\n", '[peer.sg]\nallowed_ips = ["198.19.0.0/16"]\n[peer.jp]\n')
        if rng.random() < 0.3:
            text = text.replace("unsolicited_syn", "udp_timeout = 400\nunsolicited_syn")
        world.reload(text)
        yield 300.0
        world.list_prefixes(())
        world.reload()

    def _node_lost(self) -> Script:
        """The default node goes, its stand-in takes over, then nobody, then both are back; what peers announce comes
        and goes with them."""
        gateway = self.world.gateway
        for unreachable in ({"hk"}, {"hk", "jp"}, {"jp"}, set()):
            gateway.unreachable_nodes = unreachable
            gateway.wanted_nodes.clear()
            yield self.rng.uniform(30, 600)

    def _router_lost(self) -> Script:
        """The ISP's router is away, and comes back with another MAC address."""
        world = self.world
        world.router_mac = None
        yield self.rng.uniform(60, 400)
        world.router_mac = bytes((2, 0xAA, 0, 0, 1, self.rng.randrange(256)))
        world.frame("tap1", arp(1, world.router_mac, 0xC0A80101, bytes(6), 0xC0A80101))

    def _exhaustion(self) -> Script:
        """A host opens more than it may have, and others more than there are."""
        for _ in range(6):
            source = self._pick()
            if source is None:
                return
            for _ in range(450):
                self.world.send("tap0", packet(UDP, (source, self._port(), self._remote(), 6881), bytes(20)))
                if self.rng.random() < 0.1:
                    yield 0.01
            yield 5.0

    def _flip(self) -> Script:
        """The table says something else for a while, under traffic."""
        world = self.world
        world.reload(CONFIGURATION.replace("[offload]", '[offload]\nbypass = ["203.0.113.0/26"]'))
        yield 120.0
        world.carry_out(world.gateway.probe("tap1", 0xC0A80101, world.now))
        world.gateway.arp["tap0"].flush()
        yield 60.0
        world.gateway.flush_links([self._pick() or SERVER])
        world.reload()

    # Checks

    def _check(self) -> None:
        world, gateway = self.world, self.world.gateway
        balance.check(gateway)
        for name, port in gateway.counters.ports.items():
            told, seen = (port.rx_packets, port.tx_packets), (world.frames[name, "in"], world.frames[name, "out"])
            if told != seen:
                raise Unfit(f"{name}: the counters say {told} frames in and out, outside there were {seen}")
        gateway.fast.harvest(gateway.fast.table.limit, world.now)
        links = 0
        for link in gateway.aliases.links(world.now):
            links += 1
            if not link.is_static and link.expires_ns - link.last_ns > seconds_ns(7440 + HARVEST_S):
                raise Unfit(f"{link}: it outlives its timer")
            if not link.is_static and link.expires_ns + HARVEST_S * SECOND_NS < world.now:
                raise Unfit(f"{link}: it should have ended")
        self.most_links = max(self.most_links, links)

    def _end_of_night(self) -> None:
        world = self.world
        if not world.idle:
            raise Unfit("somebody is up")
        left = {path: size for path, size in sizes(world.gateway).items() if size > self._base.get(path, 0)}
        if left:
            raise Unfit(f"day {self.hours // DAY_HOURS}: not empty at the end of the night: {left}")
        gc.collect()
        objects = Counter(type(found).__qualname__ for found in gc.get_objects())
        frames = sum(world.frames.values())
        rss_bytes = _resident_bytes()
        self.nights.append(Night(self.hours // DAY_HOURS, frames, objects.total(), rss_bytes, self.most_links))
        self._tell(str(self.nights[-1]))
        if len(self.nights) < 3:  # the first day is a morning without one before, and fills every cache
            self._objects = objects
        elif objects.total() > self._objects.total() + MORE_OBJECTS:
            raise Unfit(
                f"objects that were not there after the second night: {(objects - self._objects).most_common(10)}"
            )

    def document(self) -> dict[str, Any]:
        """For machines."""
        world = self.world
        return {
            "days": self.hours / DAY_HOURS,
            "frames_in": sum(number for (_, way), number in world.frames.items() if way == "in"),
            "frames_out": sum(number for (_, way), number in world.frames.items() if way == "out"),
            "repeated": sum(account.repeated_in for account in balance.accounts(world.gateway).values()),
            "fates": {name: account.fates for name, account in balance.accounts(world.gateway).items()},
            "drops": {reason.value: number for reason, number in world.gateway.counters.drops.items() if number},
            "most_links": self.most_links,
            "rss_slope_bytes_a_day": round(slope([(night.day, night.rss_bytes) for night in self.nights[1:]])),
            "objects_slope_a_day": round(slope([(night.day, night.objects) for night in self.nights[1:]]), 1),
            "nights": [night._asdict() for night in self.nights],
        }


def sizes(gateway: object) -> dict[str, int]:
    """How much every store of the gateway holds, by the path of attributes that leads to it: whatever has a length and
    may grow. Counters count, and the `_LAZY` ones forget on the next occasion."""
    return dict(_sizes(gateway, "", set()))


def _sizes(thing: object, path: str, seen: set[int]) -> Iterator[tuple[str, int]]:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Counter):
        return
    if isinstance(thing, dict | list | set) or type(thing).__name__ in ("deque", "OrderedDict"):
        yield path, len(thing)  # type: ignore[arg-type]  # a deque too has a length
        values = list(thing.values()) if isinstance(thing, dict) else []
        if 0 < len(values) <= 8:  # rooms by name; a store of many is its length
            for key, value in zip(list(thing), values, strict=True):  # type: ignore[call-overload]
                yield from _sizes(value, f"{path}[{key}]", seen)
        return
    if not type(thing).__module__.startswith(("bridge", "alias", "arp", "flow", "icmp", "tunnel")):
        return
    if type(thing).__name__ in ("Link", "Config", "RouteTable"):
        return
    names = [*getattr(thing, "__dict__", {})]
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    for name in names:
        if name not in _LAZY and hasattr(thing, name):
            yield from _sizes(getattr(thing, name), f"{path}.{name}", seen)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main(arguments: Sequence[str] | None = None) -> int:
    """1 where anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m trials.soak.days", description=__doc__.partition("\n")[0])
    parser.add_argument("--days", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--busy", type=float, default=1.0, help="how much happens")
    parser.add_argument("--slack", type=float, default=0.2, help="how late the loop may be with a timer, in seconds")
    parser.add_argument("-j", "--json", action="store_true", help="one JSON document")
    options = parser.parse_args(arguments)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        found = SimulatedSoak(
            Path(folder),
            options.seed,
            options.busy,
            options.slack,
            lambda line: print(line, file=sys.stderr, flush=True),
        )
        fault = ""
        try:
            found.run(options.days)
        except AssertionError as wrong:
            fault = f"after {found.hours} hours: {wrong}"
        document = {**found.document(), "cpu_s": round(time.process_time() - began), "fault": fault}
    if options.json:
        print(json.dumps(document))
    else:
        for key, value in document.items():
            if key != "nights":
                print(f"{key:22} {value}")
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
