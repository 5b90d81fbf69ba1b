"""In one process, without devices: what the rooms themselves cost.

Not in these figures: the kernel's share, which dominates on real devices, and the tunnel but for its sealing and
opening.
"""

from __future__ import annotations

import gc
import random
import resource
import struct
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

from alias.table import Aliases
from alias.types import AliasSettings, Egress
from arp import packet as arp_packet
from arp.port import ArpPort
from arp.responder import STRANGERS_PER_SECOND
from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.config.load import load
from bridge.state.links import open_link_file
from bridge.walk.gateway import Gateway
from trials.bench import flowtable, sealing
from trials.bench.figure import Figure, summary
from trials.fuzz.targets.frames import CONFIGURATION
from wire import ipv4
from wire.checksum import checksum, pseudo_header_sum
from wire.gso import GSO_TCPV4, GsoHeader
from wire.ipv4 import Packet
from wire.tcp import ACK, FIN, PSH, SYN
from wire.units import SECOND_NS, address_int

ROOMS = "rooms"
LAN_HOST = address_int("192.168.200.10")
REMOTE = address_int("203.0.113.5")
ETHERNET = bytes.fromhex("02000000c80202aa0000000a0800")
ETHERNET_BACK = bytes.fromhex("02000000010202aa000000010800")


def measured(name: str, unit: str, rounds: int, once: Callable[[], float], key: str = "") -> Figure:
    """Run `once` for each round and summarise what it returns; `key` where a goal is held against it."""
    values = []
    for _ in range(rounds):
        gc.collect()
        values.append(once())
    return summary(name, unit, values)._replace(key=key)


def udp(source_port: int, payload: bytes = b"x" * 18) -> bytes:
    """A UDP packet from the LAN host to the remote (with 18 bytes of payload a 64-byte frame)."""
    body = source_port.to_bytes(2, "big") + b"\0\x35" + (8 + len(payload)).to_bytes(2, "big") + b"\0\0" + payload
    check = checksum(body, pseudo_header_sum(LAN_HOST, REMOTE, ipv4.UDP, len(body)))
    body = body[:6] + check.to_bytes(2, "big") + body[8:]
    return ipv4.header(LAN_HOST, REMOTE, ipv4.UDP, len(body), flags=ipv4.DONT_FRAGMENT) + body


def connection(source_port: int) -> list[tuple[str, bytes]]:
    """One TCP connection of the LAN host, (port, frame) in order: SYN, SYN+ACK, ACK, data, FIN, FIN, ACK. Behind the
    NAT it keeps its source port, as the first to ask for it."""
    outside, mss = address_int("192.168.1.2"), bytes.fromhex("020405b4")
    ports, reply_ports = struct.pack("!HH", source_port, 80), struct.pack("!HH", 80, source_port)

    def tcp(is_reply: bool, flags: int, sequence: int, acknowledgment: int, tail: bytes = b"") -> tuple[str, bytes]:
        source, destination = (REMOTE, outside) if is_reply else (LAN_HOST, REMOTE)
        offset = 6 if flags & SYN else 5
        body = reply_ports if is_reply else ports
        body += struct.pack("!IIBBHHH", sequence, acknowledgment, offset << 4, flags, 64_000, 0, 0) + tail
        check = checksum(body, pseudo_header_sum(source, destination, ipv4.TCP, len(body)))
        body = body[:16] + check.to_bytes(2, "big") + body[18:]
        packet = ipv4.header(source, destination, ipv4.TCP, len(body), flags=ipv4.DONT_FRAGMENT) + body
        return ("tap1", ETHERNET_BACK + packet) if is_reply else ("tap0", ETHERNET + packet)

    return [
        tcp(False, SYN, 100, 0, mss),
        tcp(True, SYN | ACK, 500, 101, mss),
        tcp(False, ACK, 101, 501),
        tcp(False, PSH | ACK, 101, 501, b"x" * 100),
        tcp(False, FIN | ACK, 201, 501),
        tcp(True, FIN | ACK, 501, 202),
        tcp(False, ACK, 202, 502),
    ]


def super_frame() -> tuple[bytes, GsoHeader]:
    """A TCP super-frame of 45 segments with a partial checksum, as a tap hands it over."""
    payload = bytes(1448 * 45)
    head = bytes.fromhex("1388005000000001000000018010ffff00000000" + "0101080a0000000100000001")
    body = head + payload
    body = body[:16] + pseudo_header_sum(LAN_HOST, REMOTE, ipv4.TCP, len(body)).to_bytes(2, "big") + body[18:]
    packet = ipv4.header(LAN_HOST, REMOTE, ipv4.TCP, len(body), flags=ipv4.DONT_FRAGMENT) + body
    return ETHERNET + packet, GsoHeader(True, GSO_TCPV4, 52, 1448, 20, 16)


def gateway_in(folder: Path, lines: int = 10_000) -> Gateway:
    """A gateway with an offload list of that many prefixes (the remote's among them)."""
    rng = random.Random(1)
    prefixes = {f"{rng.randrange(11, 100)}.{rng.randrange(256)}.{rng.randrange(256)}.0/24" for _ in range(lines)}
    (folder / "offload.txt").write_text("\n".join(sorted(prefixes)[: lines - 1]) + "\n203.0.113.0/24\n")
    path = folder / "gateway.toml"
    unbounded = "max_links = 65536\nmax_links_per_host = 65536"
    path.write_text(CONFIGURATION.replace("max_links = 2000\nmax_links_per_host = 500", unbounded))
    config = load(path, "replay")
    return Gateway(gateway_settings(config), routes_from(config), random.Random(0))


def figures(rounds: int) -> list[Figure]:
    """All of them, in the order of a packet's path."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gateway = gateway_in(folder)
        found = [*_routes(gateway, rounds), *_arp_tables(), *_walks(gateway, rounds), *_new_flows(folder, rounds)]
    found += flowtable.figures(rounds)
    found += sealing.figures(rounds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found.append(summary("this process at its largest, all of the above", "MiB", [peak]))
    return [figure._replace(path=ROOMS, contestant="ours") for figure in found]


def _routes(gateway: Gateway, rounds: int) -> Iterator[Figure]:
    addresses = [random.Random(2).getrandbits(32) for _ in range(100_000)]

    def load_routes() -> float:
        started = time.perf_counter()
        routes_from(load(Path(gateway.settings.source), "replay"))
        return (time.perf_counter() - started) * 1e3

    def look_up() -> float:
        target = gateway.routes.target
        started = time.perf_counter()
        for address in addresses:
            target(address)
        return len(addresses) / (time.perf_counter() - started) / 1e6

    yield measured("read, check and build a list of 10,000 prefixes", "ms", rounds, load_routes)
    yield measured("route look-ups", "M/s", rounds, look_up)


def _arp_tables() -> Iterator[Figure]:
    def arp_memory(hosts: int) -> float:
        network = address_int("10.0.0.0")
        tracemalloc.start()
        table = ArpPort(network + 1, 16, b"\x02\0\0\0\0\1", {}, random.Random(0))
        for host in range(2, 2 + hosts):
            mac = b"\x02\0\0\0" + host.to_bytes(2, "big")
            question = arp_packet.request(mac, network + host, network + 1)
            table.receive(question, host * SECOND_NS // STRANGERS_PER_SECOND)  # no faster than strangers are admitted
        assert table.used == hosts
        objects, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return (table.size_bytes + objects) / (1 << 20)

    yield measured("ARP table of a /16, empty", "MiB", 1, lambda: arp_memory(0))
    yield measured("ARP table of a /16, every slot in use", "MiB", 1, lambda: arp_memory(65_533))


def _walks(gateway: Gateway, rounds: int) -> Iterator[Figure]:
    frame = ETHERNET + udp(5000)
    large, claims = super_frame()

    def forwarded() -> float:
        started = time.perf_counter()
        for turn in range(20_000):
            gateway.receive("tap0", frame, turn)
        return 20_000 / (time.perf_counter() - started) / 1e3

    def super_frames() -> float:
        started = time.perf_counter()
        for turn in range(2_000):
            gateway.receive("tap0", large, turn, claims)
        return 2_000 * len(large) * 8 / (time.perf_counter() - started) / 1e9

    yield measured("slow path, 64-byte UDP, LAN to tap1, one flow", "kpps", rounds, forwarded)
    yield measured("slow path, 64 KB TCP super-frames, LAN to tap1", "Gbit/s", rounds, super_frames)


def _new_flows(folder: Path, rounds: int) -> Iterator[Figure]:
    def new_flows() -> float:
        fresh = gateway_in(folder, 100)
        frames = [ETHERNET + udp(port) for port in range(1024, 21_024)]
        started = time.perf_counter()
        for frame in frames:
            fresh.receive("tap0", frame, 0)
        return len(frames) / (time.perf_counter() - started) / 1e3

    def kept_flows() -> float:
        """In bursts of 64 on the real clock, each with its turn of the timers, as the loop has them."""
        fresh = gateway_in(folder, 100)
        parts = fresh.aliases, fresh.interfaces, fresh.decision.crossing
        fresh.ledger = open_link_file(folder / "links", *parts, time.perf_counter_ns())
        assert fresh.ledger is not None
        frames = [ETHERNET + udp(port) for port in range(1024, 21_024)]
        started = time.perf_counter()
        for first in range(0, len(frames), 64):
            now = time.perf_counter_ns()
            for frame in frames[first : first + 64]:
                fresh.receive("tap0", frame, now)
            fresh.tick(now)
        seconds = time.perf_counter() - started
        (folder / "links").unlink()
        return len(frames) / seconds / 1e3

    def new_connections() -> float:
        fresh = gateway_in(folder, 100)
        frames = [frame for port in range(1024, 4024) for frame in connection(port)]
        started = time.perf_counter()
        sent = sum(len(fresh.receive(port, frame, 0)) for port, frame in frames)
        seconds = time.perf_counter() - started
        assert sent == len(frames), "a frame of a connection was not forwarded"
        return 3_000 / seconds / 1e3

    yield measured("new UDP flows through the whole walk", "k/s", rounds, new_flows, "new_flows")
    yield measured("new UDP flows through the whole walk, links written down", "k/s", rounds, kept_flows)
    yield measured("new TCP connections through the walk", "k/s", rounds, new_connections)
    yield measured("64,512 UDP links with their indexes", "MiB", 1, _link_memory)


def _link_memory() -> float:
    tracemalloc.start()
    aliases = Aliases(AliasSettings(max_links_per_host=65_536), (), (), random.Random(0))
    for port in range(1024, 65_536):
        packet = ipv4.parse(udp(port))
        assert isinstance(packet, Packet)
        ipv4.read_transport(packet)
        aliases.outbound(Egress.TAP1, packet, 0)
    now, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return now / (1 << 20)
