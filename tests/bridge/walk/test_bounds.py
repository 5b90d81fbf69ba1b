"""The bounds in docs/bounds.md hold when each store is filled, and floods in process leave nothing that grows."""

from __future__ import annotations

import gc
import random
import re
import tracemalloc
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from alias.fragments import FragmentStore
from alias.identification import GENERATION, Identifications
from alias.ports import REST_NS
from alias.reassembly import Reassembly
from alias.strangers import LIMIT, Strangers
from alias.table import Aliases
from alias.types import AliasSettings, Egress
from arp.waiting import WaitingFrames, WaitingLimits
from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.config.load import load
from bridge.daemon.implementation import open_table
from bridge.ports.policing import PlainPolice, Senders
from bridge.walk.counters import MOST_ETHERTYPES
from bridge.walk.gateway import Gateway
from flow.plain import PlainTable
from icmp.errors import RateLimit
from lab.topology import CONFIGURATION, OFFLOAD_LIST
from tests.alias.nat import packet, udp
from trials.floods.frames import FRAMES
from wire import ipv4
from wire.units import SECOND_NS, address_int

PAGE = (Path(__file__).parents[3] / "docs" / "bounds.md").read_text()
STATED = {name: float(mib) for name, mib in re.findall(r"^\| ([^|]+?) \|[^|]*\| ([0-9.]+) \|", PAGE, re.MULTILINE)}
MIB = 1 << 20
PART = 4
"""Of links, sessions and resting ports, which are many and alike, a quarter is made."""
INSIDE, REMOTE = address_int("192.168.200.3"), address_int("203.0.113.5")
LAN = address_int("192.168.200.0")


def allocated(fill: Callable[[], object]) -> float:
    """MiB that a filled store takes."""
    gc.collect()
    tracemalloc.start()
    try:
        kept = fill()
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
        del kept
    finally:
        tracemalloc.stop()
    return taken / MIB


def syn(source: int, source_port: int, remote: int) -> ipv4.Packet:
    body = source_port.to_bytes(2, "big") + b"\x00\x50" + bytes(8) + b"\x50\x02\xff\xff" + bytes(4)
    return packet(ipv4.header(source, remote, ipv4.TCP, len(body)) + body)


def full_table(**settings: int) -> Aliases:
    return Aliases(AliasSettings(**settings), (), (), random.Random(1))


def links() -> Aliases:
    """All links, TCP, under two hosts."""
    aliases = full_table(max_links=65_536 // PART, max_links_per_host=65_536 // PART)
    for number in range(65_536 // PART):
        aliases.outbound(Egress(number % 2), syn(INSIDE + number % 2, 1024 + number, REMOTE), SECOND_NS)
    assert len(aliases) == 65_536 // PART
    aliases.events.clear()
    return aliases


def sessions() -> Aliases:
    """As many TCP sessions as are followed, in few links."""
    aliases = full_table(max_links=65_536 // PART, max_links_per_host=65_536 // PART)
    for number in range(1024 // PART * 70):
        aliases.outbound(Egress.TAP1, syn(INSIDE, 1024 + number // 70, REMOTE + number % 70), SECOND_NS)
    assert len(aliases) == 1024 // PART
    aliases.events.clear()
    return aliases


def resting() -> Aliases:
    """Ports of a protocol and an egress at rest."""
    aliases = full_table(max_links=70_000, max_links_per_host=70_000)
    for port in range(1024, 1024 + 65_536 // PART):
        aliases.outbound(Egress.TAP1, udp(INSIDE, port, REMOTE, 53), SECOND_NS)
    later = SECOND_NS + aliases.settings.udp_timeout_ns
    aliases.tick(later)
    assert len(aliases) == 0
    assert REST_NS == 120 * SECOND_NS
    return aliases


def fragment(source: int, identification: int, offset: int) -> ipv4.Packet:
    data = ipv4.header(source, REMOTE, ipv4.UDP, 1480, identification=identification, flags=0x2000 | offset // 8)
    found = ipv4.parse(data + bytes(1480))
    assert isinstance(found, ipv4.Packet)
    return found


def fragments(offset: int) -> FragmentStore[str, ipv4.Packet]:
    store: FragmentStore[str, ipv4.Packet] = FragmentStore()
    for number in range(6000):
        one = fragment(LAN + number % 8, number // 8, offset)
        key = ("tap0", one.source, one.destination, one.protocol, one.identification)
        store.arrive(key, one, one, SECOND_NS)
        if not offset:
            store.settle(key, "by tap1", SECOND_NS)
    assert store.waiting + store.decided > 1000
    return store


def partial() -> Reassembly:
    store = Reassembly()
    for number in range(6000):
        one = fragment(LAN + number % 16, number // 64, 1480 * (number // 16 % 4))
        store.add(("tap0", one.source, one.destination, one.protocol, one.identification), one, SECOND_NS)
    return store


def arp_waiting() -> WaitingFrames:
    queues = WaitingFrames(WaitingLimits())
    for number in range(256 * 9):
        queues.add(number % 256, bytearray(2048), 2048)
    assert queues.size_bytes == WaitingLimits().bytes_total
    return queues


def identifications() -> Identifications:
    memory = Identifications(random.Random(1))
    for number in range(3 * GENERATION):
        data = ipv4.header(INSIDE, REMOTE + number, ipv4.UDP, 8, identification=number & 0xFFFF)
        one = ipv4.parse(data + bytes(8))
        assert isinstance(one, ipv4.Packet)
        memory.choose(Egress.TAP1, one, SECOND_NS)
    assert len(memory) <= 2 * GENERATION
    return memory


def strangers() -> Strangers:
    waiting = Strangers()
    for number in range(2 * LIMIT):
        waiting.remember(Egress.TAP1, syn(REMOTE + number, 5000, INSIDE), SECOND_NS)
    assert len(waiting) == LIMIT
    return waiting


def error_limits() -> RateLimit:
    limit = RateLimit(100_000)
    for number in range(50_000):
        limit.allows(number % 4096, SECOND_NS + number)
    for number in range(50_000):
        limit.allows(number, SECOND_NS + 50_000 + number)
    return limit


def polices() -> list[PlainPolice]:
    return [PlainPolice(Senders.STATIONS, 14, 1) for _ in range(3)]


STORES: dict[str, Callable[[], object]] = {
    "links": links,
    "TCP sessions beside the first of a link": sessions,
    "ports at rest": resting,
    "fragments that wait": lambda: fragments(1480),
    "decided datagrams": lambda: fragments(0),
    "reassembly for us": partial,
    "frames that wait for ARP": arp_waiting,
    "IP identifications": identifications,
    "unsolicited SYNs": strangers,
    "ICMP error limits": error_limits,
    "policing": polices,
}


@pytest.mark.parametrize("name", STORES)
def test_a_store_that_is_filled_takes_no_more_than_the_page_says(name: str) -> None:
    """F5, A24, C1: measured, not reckoned."""
    taken = allocated(STORES[name]) * (PART if STORES[name] in (links, sessions, resting) else 1)
    assert STATED[name] / 8 <= taken <= STATED[name], f"{name}: {taken:.2f} MiB"


def gateway(folder: Path) -> Gateway:
    (folder / "gateway.toml").write_text(CONFIGURATION + "\n[alias]\nmax_links = 4096\nmax_links_per_host = 1024\n")
    (folder / "offload.txt").write_text(OFFLOAD_LIST)
    config = load(folder / "gateway.toml", "replay")
    table = open_table(random.Random(1), 1024, {"TAPBRIDGE_FAST": "0"})
    assert isinstance(table, PlainTable)
    return Gateway(gateway_settings(config), routes_from(config), random.Random(1), table=table)


def walk_all(walked: Gateway, port: str, frames: list[bytes], begun: int) -> int:
    """A flood at 50,000 frames a second, with the timers between; when it was over."""
    now = begun
    for frame in frames:
        now += SECOND_NS // 50_000
        due = walked.next_deadline()
        if due is not None and due <= now:
            walked.tick(now)
        walked.receive(port, frame, now)
    return now


@pytest.mark.parametrize("kind", FRAMES)
def test_once_a_flood_has_filled_what_it_can_fill_nothing_grows_any_more(kind: str, tmp_path: Path) -> None:
    """F5, A27, C1: all of it walked, none of it policed; the second half of a flood leaves nothing behind."""
    port = "tap1" if kind in ("unsolicited", "errors") else "tap0"
    walked = gateway(tmp_path)
    mac = walked.interfaces[port].mac
    router = bytes([2, 0xAA, 0, 0, 0, 1])
    walked.add_neighbour("tap1", address_int("192.168.1.1"), router, SECOND_NS)
    frames = list(islice(FRAMES[kind](bytes([2, 0, 0, 0, 0, 4]), mac, random.Random(1)), 18_000))
    now = walk_all(walked, port, frames[:9_000], 2 * SECOND_NS)
    tracemalloc.start()
    try:
        now = walk_all(walked, port, frames[9_000:13_500], now)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        walk_all(walked, port, frames[13_500:], now)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < MIB, f"{grown / MIB:.2f} MiB"
    counters = walked.counters
    assert counters.ports[port].rx_packets == len(frames)
    assert len(walked.aliases) <= 4096
    assert len(walked.fast) <= walked.fast.table.limit


def test_frames_of_every_ethertype_are_counted_and_few_of_them_by_number(tmp_path: Path) -> None:
    walked = gateway(tmp_path)
    mac = walked.interfaces["tap0"].mac
    kinds = [kind for kind in range(1536, 4096) if kind not in (0x0800, 0x0806)]
    for kind in kinds:
        walked.receive("tap0", mac + bytes([2, 0, 0, 0, 0, 9]) + kind.to_bytes(2, "big") + bytes(46), SECOND_NS)
    assert len(walked.counters.ethertypes) == MOST_ETHERTYPES
    assert sum(walked.counters.drops.values()) == len(kinds)
