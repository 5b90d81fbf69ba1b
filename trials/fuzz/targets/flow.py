"""The flow table against its twin, and decisions that are repeated against decisions that are made.

`table_steps`: the same calls to every implementation give the same answers. `Twins`: two gateways of one seed get the
same frames and the same changes; one repeats what its table knows, the other walks every frame. The
frames that leave must be the same, byte for byte, and so must the links be once the table has told what it counted.
"""

from __future__ import annotations

import random
import struct
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.config.load import load
from bridge.daemon.implementation import store_maker
from bridge.walk import balance
from bridge.walk.effects import Effect, Send
from bridge.walk.gateway import Gateway
from flow.plain import PlainTable
from flow.table import HARVEST_S, NO_SLOT, Forwarded, Hits, Punt, Table
from trials.fuzz.choices import is_spent
from trials.fuzz.claims import as_partial, claims_of
from trials.fuzz.hostile import Broken, Failure, Target, mutated, scratch_folder
from trials.fuzz.rules import Rules
from trials.fuzz.targets.frames import ADDRESSES, CONFIGURATION, LAN, MACS, repaired
from wire import ipv4
from wire.checksum import checksum, pseudo_header_sum
from wire.ethernet import ARP_TYPE, IPV4_TYPE
from wire.gso import GsoHeader
from wire.units import SECOND_NS, address_int

MS_NS = 1_000_000
FlowPair = tuple[int, int, int, int]


def implementations() -> list[type[Any]]:
    """The plain table, and the compiled one where it was built."""
    try:
        from flow.fast import CompiledTable  # noqa: PLC0415 - it may be missing
    except ImportError:
        return [PlainTable]
    return [PlainTable, CompiledTable]


# Packets


def packet(
    protocol: int,
    ends: FlowPair,
    data: bytes = b"",
    *,
    tcp_flags: int = 0x10,
    ack: int = 0,
    sequence: int = 0,
    **ip: int,
) -> bytes:
    """A right IPv4 packet. `ends`: source, source port, destination, destination port (of ICMP: identifier, type)."""
    source, source_port, destination, destination_port = ends
    if protocol == ipv4.TCP:
        body = struct.pack("!HHIIBBHHH", source_port, destination_port, sequence, ack, 5 << 4, tcp_flags, 500, 0, 0)
        field = 16
    elif protocol == ipv4.UDP:
        body = struct.pack("!HHHH", source_port, destination_port, 8 + len(data), 0)
        field = 6
    else:
        body = struct.pack("!BBHHH", destination_port, 0, 0, source_port, sequence & 0xFFFF)
        field = 2
    body += data
    pseudo = 0 if protocol == ipv4.ICMP else pseudo_header_sum(source, destination, protocol, len(body))
    body = body[:field] + checksum(body, pseudo).to_bytes(2, "big") + body[field + 2 :]
    return ipv4.header(source, destination, protocol, len(body), **ip) + body


def _spoiled(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.7:
        return data
    data = mutated(data, rng)
    return repaired(data) if rng.random() < 0.8 else data


# Tables

_OUR_MACS = [bytes.fromhex("02000000c802"), bytes.fromhex("020000000102"), b"", b""]
_SENDER = bytes.fromhex("02aa0000000a")
_HOSTS = [*ADDRESSES[:4], 0, 0xFFFFFFFF, 0xFFFF0000, 0x0000FFFF]
_NUMBERS = (0, 1, 53, 5000, 65535)


def _ends(protocol: int, rng: random.Random) -> FlowPair:
    last = rng.choice((0, 8, 13, 14, 3)) if protocol == ipv4.ICMP else rng.choice(_NUMBERS)
    return rng.choice(_HOSTS), rng.choice(_NUMBERS), rng.choice(_HOSTS), last


def _same(tables: Sequence[Table], method: str, *arguments: object) -> None:
    """Call a method of each; `Failure` where they answer differently."""
    answers = [getattr(table, method)(*arguments) for table in tables]
    if method in ("live", "harvest", "settle"):
        several = [[answer] if isinstance(answer, Hits) else answer or () for answer in answers]
        answers = [[_meant(one) for one in told] for told in several]
    for table, answer in zip(tables[1:], answers[1:], strict=True):
        if answer != answers[0]:
            raise Failure(f"{method}: {tables[0]} gives {answers[0]}, {table} gives {answer}")


def _meant(told: Any) -> Any:
    """A window without an acknowledgment says nothing."""
    return told._replace(window=0) if isinstance(told, Hits) and told.acknowledgment is None else told


def table_steps(tables: Sequence[Table], rng: random.Random, steps: int, now: int = 0) -> int:
    """So many calls, the same to each table; when it is afterwards. The same `rng` gives the same calls."""
    words = [array("Q", bytes(8 * 32)) for _ in range(2)]
    known: list[tuple[int, int, FlowPair]] = []
    for word in words:
        for slot in range(4):
            word[slot * 4] = rng.getrandbits(64)
    for number in range(len(_OUR_MACS)):
        _same(tables, "set_port", *_port_facts(number, 1500, words))
    for _ in range(steps):
        if is_spent(rng):
            break
        now += rng.choice((0, 1, 1000, MS_NS, MS_NS * 999, SECOND_NS, 7 * SECOND_NS)) if rng.random() < 0.3 else 0
        kind = rng.random()
        protocol = rng.choice((ipv4.TCP, ipv4.UDP, ipv4.ICMP))
        in_port, ends = rng.randrange(4), _ends(protocol, rng)
        if known and rng.random() < 0.8:
            in_port, protocol, ends = rng.choice(known)
        if kind < 0.25:
            after = ends if rng.random() < 0.3 else _ends(protocol, rng)
            if protocol == ipv4.ICMP:
                after = (*after[:3], ends[3])
            known.append((in_port, protocol, ends))
            slot, flags = rng.choice((NO_SLOT, 0, 1, 2, 6, 9)), rng.choice((1, 1, 1, 3, 5, 7, 0, 2))
            size_bytes = rng.randrange(20, 65536)
            _same(tables, "learn", in_port, rng.randrange(4), protocol, ends, after, size_bytes, slot, flags, now)
        elif kind < 0.85:
            _same(tables, "forward", in_port, *_frame(in_port, protocol, ends, rng), now)
        elif kind < 0.88:
            _same(tables, "settle", in_port, protocol, ends, now, rng.random() < 0.5)
        elif kind < 0.93:
            _same(tables, "harvest", rng.choice((1, 3, 1000)), now)
        elif kind < 0.95:
            rng.choice(words)[4 * rng.randrange(8)] = rng.choice((0, 1 << 50, rng.getrandbits(64)))
        elif kind < 0.97:
            _same(tables, "outdate")
        elif kind < 0.985:
            _same(tables, "set_port", *_port_facts(rng.randrange(4), rng.choice((0, 68, 576, 1500, 65535)), words))
        else:
            _same(tables, "live", now)
            _same(tables, "__len__")
    return now


def _port_facts(number: int, mtu_bytes: int, words: list[array[int]]) -> tuple[int, bytes, int, memoryview | None]:
    mac = _OUR_MACS[number]
    return number, mac, mtu_bytes, memoryview(words[number]) if mac else None


def _frame(in_port: int, protocol: int, ends: FlowPair, rng: random.Random) -> tuple[bytes, GsoHeader | None]:
    """A frame of a flow for a port, right or spoiled."""
    data = packet(
        protocol,
        ends,
        rng.randbytes(rng.choice((0, 1, 6, 40, 1400, 1453))) if rng.random() < 0.9 else bytes(8),
        tcp_flags=rng.choice((0x10, 0x10, 0x18, 0, 0x02, 0x11, 0x14)),
        ack=rng.getrandbits(32),
        sequence=rng.choice((0, 1, rng.getrandbits(32))),
        ttl=rng.choice((64, 64, 2, 1, 0)),
        flags=rng.choice((0x4000, 0x4000, 0, 0x2000, 0x8000, 1)),
    )
    field = {ipv4.TCP: 36, ipv4.UDP: 26}.get(protocol, 22)
    if rng.random() < 0.2:  # the sums that are spelled in two ways
        data = data[:field] + rng.choice((b"\0\0", b"\xff\xff")) + data[field + 2 :]
    data, claims = claims_of(_spoiled(data, rng), rng)
    if rng.random() < 0.2:
        data += rng.randbytes(rng.randrange(20))
    if _OUR_MACS[in_port]:
        sender = rng.choice((_SENDER,) * 9 + (bytes(6), b"\x01" + bytes(5), _OUR_MACS[in_port]))
        data = (_OUR_MACS[in_port] if rng.random() < 0.95 else rng.randbytes(6)) + sender + IPV4_TYPE + data
        if rng.random() < 0.02:
            data = data[: rng.randrange(len(data))]
    return data, claims


# Gateways


class Twins:
    """`fast` repeats what it can, `walk` makes every decision. Both have a table, so that their timers are the same."""

    def __init__(
        self, folder: Path, configuration: str, seed: int, make_table: Callable[[], Table] = PlainTable
    ) -> None:
        self.path = folder / "gateway.toml"
        self.path.write_text(configuration)
        if not (folder / "offload.txt").exists():
            (folder / "offload.txt").write_text("203.0.113.0/24\n")
        config = load(self.path, "replay")
        self.table = make_table()
        self.fast, self.walk = (
            Gateway(
                gateway_settings(config),
                routes_from(config),
                random.Random(seed),
                table=table,
                make_store=store_maker(random.Random(seed), table),
            )
            for table in (self.table, PlainTable())
        )
        self.rules = Rules(self.walk, [LAN] if "exempt" not in configuration else [])
        self.now = 1000 * SECOND_NS
        self.repeated = 0
        self.punts = dict.fromkeys(Punt, 0)
        self.recent: deque[tuple[str, bytes, GsoHeader | None]] = deque(maxlen=20)

    def inject(self, port: str, frame: bytes, claims: GsoHeader | None = None) -> tuple[list[Send], bool]:
        """Frames that leave for a frame that comes in, and whether it was repeated. `Failure` where the walk sends
        others."""
        walked = _sends(self.walk.receive(port, frame, self.now, claims))
        found = self.table.forward(self.fast.fast.number(port), frame, claims, self.now)
        if isinstance(found, Forwarded):
            self.repeated += 1
            sent = [Send(self.fast.fast.name(found.out_port), found.frame, found.gso)]
        else:
            self.punts[found] += 1
            sent = _sends(self.fast.receive(port, frame, self.now, claims))
        if sent != walked:
            told = "repeated" if isinstance(found, Forwarded) else str(found)
            raise Failure(f"{port} < {frame.hex()} {claims}: {told}: {sent}, walked: {walked}")
        self.rules.sends(port, frame, claims, sent)
        return sent, isinstance(found, Forwarded)

    def advance(self, seconds: float) -> list[Send]:
        """Let the clock run on; what timers sent but for ARP frames: those may come up to a harvest later."""
        end = self.now + round(seconds * SECOND_NS)
        sent: list[list[Send]] = []
        for gateway in (self.walk, self.fast):
            sent.append([])
            while (due := gateway.next_deadline()) is not None and due <= end:
                due = max(due, self.now)
                sent[-1] += [send for send in _sends(gateway.tick(due)) if send.frame[12:14] != ARP_TYPE]
        self.now = end
        if sent[0] != sent[1]:
            raise Failure(f"timers of the walk: {sent[0]}, beside a fast path: {sent[1]}")
        self.rules.sends(None, b"", None, sent[0])
        return sent[0]

    def both(self, change: Callable[[Gateway], object]) -> None:
        """Change something on both."""
        for gateway in (self.walk, self.fast):
            change(gateway)

    def reload(self, configuration: str | None = None, prefixes: str | None = None) -> None:
        """Take another configuration, or another list."""
        if configuration is not None:
            self.path.write_text(configuration)
        if prefixes is not None:
            (self.path.parent / "offload.txt").write_text(prefixes)
        # An exempt destination sees LAN addresses, and links of before may go on for a while.
        self.rules.hidden = () if "exempt" in self.path.read_text() else self.rules.hidden
        config = load(self.path, "replay")
        self.both(lambda gateway: gateway.reconfigure(gateway_settings(config), routes_from(config), self.now))

    def compare_links(self) -> None:
        """Once everything is told, links differ by no more than a harvest in time, and by nothing else. Each frame has
        its fate on both."""
        self.fast.fast.harvest(self.table.limit, self.now)
        self.both(balance.check)
        walked, repeated = (
            {
                (link.egress, link.protocol, link.inside, link.inside_port, link.remote): link
                for link in gateway.aliases.links(self.now)
            }
            for gateway in (self.walk, self.fast)
        )
        if walked.keys() != repeated.keys():
            raise Failure(f"links: {walked.keys() ^ repeated.keys()}")
        for key, one in walked.items():
            other = repeated[key]
            for name in ("outside_port", "state", "closing", "packets", "bytes"):
                if getattr(one, name) != getattr(other, name):
                    raise Failure(f"{key}: {name} {getattr(one, name)}, repeated: {getattr(other, name)}")
            for name in ("expires_ns", "last_ns"):
                if abs(getattr(one, name) - getattr(other, name)) > HARVEST_S * SECOND_NS:
                    raise Failure(f"{key}: {name} {getattr(one, name)}, repeated: {getattr(other, name)}")


def _sends(effects: list[Effect]) -> list[Send]:
    return [Send(effect.port, bytes(effect.frame), effect.gso) for effect in effects if isinstance(effect, Send)]


STATIC_ARP = CONFIGURATION.replace('"192.168.200.10" =', '"192.168.200.11" = "02:aa:00:00:00:0b"\n"192.168.200.10" =')
LAN_HOSTS = [address_int("192.168.200.10"), address_int("192.168.200.11")]
HOST, X_TAP1, X_VPN = (address_int(text) for text in ("192.168.192.211", "192.168.1.2", "192.168.192.210"))
REMOTES = [address_int(text) for text in ("203.0.113.5", "203.0.113.6", "198.51.100.7", "192.168.200.11")]
LISTS = ("203.0.113.0/24\n", "203.0.113.5/32\n198.51.100.0/24\n", "0.0.0.0/0\n")
PREFIX = "[alias]\n"
VISITED = [("tap1", 7000), ("vpn", 7001)]
"""Forwards to one endpoint, so that a visitor may change from one to the other."""
PEERS_AND_FORWARDS = '[peer.hk]\nallowed_ips = ["0.0.0.0/0"]\n[peer.de]\nallowed_ips = ["0.0.0.0/0"]\n' + "".join(
    f'[[alias.forward]]\non = "{on}"\nprotocol = "udp"\noutside_port = {port}\ninside = "192.168.200.11:53"\n'
    for on, port in VISITED
)
CHANGED = (
    STATIC_ARP,
    STATIC_ARP + PEERS_AND_FORWARDS,
    STATIC_ARP.replace(PREFIX, PREFIX + 'exempt = ["203.0.113.6/32"]\n'),
    STATIC_ARP.replace(PREFIX, PREFIX + 'filtering = "address-dependent"\nrefresh_inbound = true\n'),
    STATIC_ARP
    + '[[alias.forward]]\non = "tap1"\nprotocol = "udp"\noutside_port = 5001\ninside = "192.168.200.11:53"\n',
)


def gateway_step(twins: Twins, rng: random.Random) -> None:
    """A frame or a change, of those that a working day brings."""
    twins.now += rng.choice((0, MS_NS, 10 * MS_NS))
    kind = rng.random()
    if kind < 0.6 and twins.recent:
        twins.inject(*rng.choice(twins.recent))  # again, as flows do
    elif kind < 0.96:
        port, protocol, ends = _inside(rng) if rng.random() < 0.55 else _outside(twins, rng)
        data = packet(
            protocol,
            ends,
            rng.randbytes(rng.choice((0, 1, 8, 500, 1400, 1473, 3000))),
            tcp_flags=rng.choice((0x10,) * 12 + (0x18, 0x02, 0x12, 0x11, 0x14, 0x04)),
            ack=rng.getrandbits(16),
            sequence=rng.getrandbits(16),
            ttl=rng.choice((64,) * 9 + (1, 2)),
            flags=rng.choice((0x4000,) * 6 + (0, 0x2000, 2)),  # the last one: a later fragment
            identification=rng.randrange(4),
        )
        if rng.random() < 0.05:
            data = _spoiled(data, rng)
        claims = None
        if protocol != ipv4.ICMP and len(data) >= 40 and rng.random() < 0.3:
            data, claims = as_partial(data, rng.choice((0, 0, 100, 1400)))
        if port in MACS:
            data = MACS[port] + IPV4_TYPE + data
        twins.recent.append((port, data, claims))
        twins.inject(port, data, claims)
    elif kind < 0.985:
        twins.advance(rng.choice((0.1, 0.1, 1, 1, 4, 4, 21, 70)))
    else:
        _change(twins, rng)


def _change(twins: Twins, rng: random.Random) -> None:
    kind = rng.randrange(7)
    if kind == 0:
        twins.advance(rng.choice((130, 310)))
    elif kind == 1:
        twins.reload(prefixes=rng.choice(LISTS))
    elif kind == 2:
        twins.reload(configuration=rng.choice(CHANGED))
    elif kind == 3:
        insides = {rng.choice(LAN_HOSTS)}
        twins.both(lambda gateway: gateway.flush_links(insides))
    elif kind == 4:
        nodes = rng.choice(({"hk"}, set()))
        twins.both(lambda gateway: setattr(gateway, "unreachable_nodes", nodes))
    elif kind == 5:
        known = rng.choice(({"vpn": 1000}, {}))
        twins.both(lambda gateway: setattr(gateway.mtus, "known", known))
    else:
        twins.compare_links()


def _protocol(rng: random.Random) -> int:
    return rng.choice((ipv4.TCP, ipv4.UDP, ipv4.UDP, ipv4.ICMP))


def _inside(rng: random.Random) -> tuple[str, int, FlowPair]:
    """A packet of the LAN or of the host."""
    protocol = _protocol(rng)
    remote = rng.choice(REMOTES)
    far = rng.choice((8, 8, 8, 0, 13)) if protocol == ipv4.ICMP else rng.choice((53, 80))
    source = rng.choice((*LAN_HOSTS, *LAN_HOSTS, HOST))
    return "tun0" if source == HOST else "tap0", protocol, (source, rng.choice((53, 80, 5000, 5001)), remote, far)


def _outside(twins: Twins, rng: random.Random) -> tuple[str, int, FlowPair]:
    """A packet from outside, mostly for a link that is there."""
    links = list(twins.walk.aliases.links(twins.now))
    remote = rng.choice(REMOTES[:3])
    if not links or rng.random() < 0.2:
        port, number = rng.choice((("tap1", rng.choice((5001, 8080, 40000))), *VISITED, ("vpn:de", VISITED[1][1])))
        return port, ipv4.UDP, (remote, rng.choice((53, 80)), X_TAP1 if port == "tap1" else X_VPN, number)
    link = rng.choice(links)
    port, address = link.egress.label, X_TAP1 if link.egress.label == "tap1" else X_VPN
    if link.protocol == ipv4.ICMP:
        return port, ipv4.ICMP, (remote, link.outside_port, address, rng.choice((0, 0, 0, 8, 14)))
    return port, link.protocol, (remote, rng.choice((53, 80)), address, link.outside_port)


# Running


def episode(rng: random.Random, most: int) -> int:
    """Two tables, or two gateways, that get the same until the generator is spent; how many steps there were."""
    found = implementations()
    steps = min(most, 500)
    try:
        if rng.random() < 0.5:
            limit = rng.choice((3, 40))
            table_steps([kind(limit) for kind in found], rng, steps, rng.randrange(1 << 44))
        else:
            _twins_for(rng.choice(found), rng, steps)
    except Exception as error:  # whatever it is, the hit that did it is told
        raise Broken("within the steps of this episode") from error
    return steps


TARGET = Target("flow", episode, compiled=True)


def _twins_for(kind: Callable[[int], Table], rng: random.Random, steps: int) -> None:
    with scratch_folder() as folder:
        limit = rng.choice((8, 1000))
        twins = Twins(Path(folder), STATIC_ARP, rng.getrandbits(16), lambda: kind(limit))
        for _ in range(steps):
            if is_spent(rng):
                break
            gateway_step(twins, rng)
        twins.compare_links()
        twins.rules.stores(twins.now)
