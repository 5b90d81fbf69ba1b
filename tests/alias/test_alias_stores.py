"""The compiled store of links and its plain twin: the same calls give the same links, events, ports and refusals."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alias.plain import PlainStore
from alias.saved import saved
from alias.table import Aliases
from alias.types import AliasSettings, Egress, Forward, Link, Linked, Unanswered, Unlinked
from tests.alias.nat import packet, udp
from tests.compiled import compiled
from trials.fuzz.targets.flow import packet as built
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import ICMP, TCP, UDP, Packet
from wire.tcp import ACK, FIN, RST, SYN
from wire.units import SECOND_NS, address_int

INSIDES = [address_int(f"192.168.200.{last}") for last in (10, 11, 12)]
REMOTES = [address_int(f"203.0.113.{last}") for last in range(1, 6)]
NEAR, FAR = (53, 500, 5000, 5001, 5002), (53, 80, 123, 443)
OTHERS = (47, 50)
FLAGS = (SYN, SYN, SYN | ACK, ACK, ACK, ACK, FIN | ACK, FIN | ACK, RST, RST | ACK, FIN | SYN, 0)
FORWARDS = (
    Forward(Egress.TAP1, TCP, 8080, INSIDES[0], 80),
    Forward(Egress.TAP1, TCP, 5000, INSIDES[1], 5000),
    Forward(Egress.TAP1, UDP, 5001, INSIDES[0], 5000),
    Forward(Egress.TAP1, UDP, 5002, INSIDES[0], 5000),
    Forward(Egress.VPN, TCP, 500, INSIDES[0], 500),
)
RESERVED = ((Egress.TAP1, UDP, 5002), (Egress.VPN, TCP, 5000))
SETTINGS = (
    AliasSettings(max_links=12, max_links_per_host=6, unsolicited_syn="unreachable"),
    AliasSettings(max_links=12, max_links_per_host=6, filtering="address-dependent"),
    AliasSettings(max_links=40, max_links_per_host=12, hosts=3, refresh_inbound=True),
    AliasSettings(max_links=40, max_links_per_host=40, udp_timeout_ns=130 * SECOND_NS),
    AliasSettings(max_links=100, max_links_per_host=30, tcp_established_ns=20_000 * SECOND_NS),
)
STEPS_NS = (1, 1_000_000, SECOND_NS // 3, SECOND_NS, 5 * SECOND_NS, 16 * SECOND_NS, 61 * SECOND_NS, 121 * SECOND_NS)


def compiled_store() -> Any:
    return compiled("alias.compiled.store", "CompiledStore")


def described(link: Link | None) -> Any:
    """All that a link says of itself."""
    if link is None:
        return None
    names = ("egress", "protocol", "inside", "inside_port", "outside_port", "remote", "state", "expires_ns", "last_ns",
             "packets", "bytes", "is_static", "closing", "question", "remotes")  # fmt: skip
    known = {name: getattr(link, name) for name in names}
    if isinstance(known["remotes"], dict):
        known["remotes"] = list(known["remotes"])
    return known, (saved(link) if not link.is_static else None)


def told(happened: Any) -> Any:
    """A value that can be compared with that of another store."""
    if isinstance(happened, Linked | Unlinked):
        return type(happened).__name__, described(happened.link)
    if isinstance(happened, list):
        return [told(one) for one in happened]
    if isinstance(happened, Drop | int | Unanswered) or happened is None:
        return happened
    return described(happened)


class Pair:
    """Two tables of one seed that are told the same."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.settings = rng.choice(SETTINGS)
        seed = rng.getrandbits(32)
        self.tables = [
            Aliases(self.settings, FORWARDS[:1], (), random.Random(seed), make)
            for make in (PlainStore, compiled_store())
        ]
        for table in self.tables:
            table.store.changes.want(True)
        self.now = 1000 * SECOND_NS
        self.kept: list[Any] = []

    def both(self, call: Callable[[Aliases], Any]) -> Any:
        plain, other = [call(table) for table in self.tables]
        assert told(plain) == told(other)
        return plain

    def link(self, number: int) -> Callable[[Aliases], Link | None]:
        def choose(table: Aliases) -> Link | None:
            links = list(table.links(self.now))
            return links[number % len(links)] if links else None

        return choose

    def compare(self) -> None:
        self.both(lambda table: table.take_events())
        self.both(lambda table: list(table.links(self.now)))
        self.both(len)
        self.both(lambda table: sorted(table.insides))
        for egress in Egress:
            for protocol in (TCP, UDP):
                assert self.tables[0].marks(egress, protocol) == self.tables[1].marks(egress, protocol)
        taken = [table.changes.take(1000) for table in self.tables]
        assert [told(link) for link in taken[0]] == [told(link) for link in taken[1]]
        self.kept += [saved(link) for link in taken[0] if link.expires_ns]
        del self.kept[:-20]

    def advance(self) -> None:
        end = self.now + self.rng.choice(STEPS_NS)
        if self.rng.random() < 0.02:
            end += self.rng.choice((250, 7441, 30_000)) * SECOND_NS
        if self.rng.random() < 0.2:
            self.now = end  # nobody called tick
            return
        while True:
            dues = [due for table in self.tables if (due := table.next_deadline()) is not None and due <= end]
            if not dues:
                break
            self.now = max(min(dues), self.now)
            self.both(lambda table: table.tick(self.now))
        self.now = end

    def leaving(self) -> Packet:
        rng = self.rng
        protocol = rng.choice((TCP, TCP, TCP, UDP, UDP, ICMP, rng.choice(OTHERS)))
        source, remote = rng.choice(INSIDES), rng.choice(REMOTES[:2] if rng.random() < 0.9 else REMOTES)
        if protocol in OTHERS:
            return packet(ipv4.header(source, remote, protocol, 4) + b"data")
        far = rng.choice((8, 8, 0, 13, 3, 42)) if protocol == ICMP else rng.choice(FAR)
        return self._packet(protocol, (source, rng.choice(NEAR), remote, far))

    def coming(self) -> Packet:
        rng = self.rng
        links = list(self.tables[0].links(self.now))
        protocol, port = rng.choice((TCP, UDP, ICMP)), rng.choice((8080, 5000, 5001, 7))
        remote = rng.choice(REMOTES[:2] if rng.random() < 0.9 else REMOTES)
        if links and rng.random() < 0.9:
            link = rng.choice(links)
            protocol, port = link.protocol, link.outside_port
        if protocol in OTHERS:
            return packet(ipv4.header(remote, 1, protocol, 4) + b"data")
        if protocol == ICMP:
            return self._packet(ICMP, (remote, port, 1, rng.choice((0, 0, 0, 14, 11))))
        return self._packet(protocol, (remote, rng.choice(FAR), 1, port))

    def _packet(self, protocol: int, ends: tuple[int, int, int, int]) -> Packet:
        rng = self.rng
        numbers = (0, 1, 2, 5, 500, 0xFFFFFFFF, rng.getrandbits(32))
        return packet(
            built(protocol, ends, rng.choice((b"", b"data")), tcp_flags=rng.choice(FLAGS), ack=rng.choice(numbers),
                  sequence=rng.choice(numbers))
        )  # fmt: skip

    def step(self) -> None:
        rng, now = self.rng, self.now
        kind = rng.random()
        egress = rng.choice((Egress.TAP1, Egress.TAP1, Egress.VPN))
        if kind < 0.45:
            leaving = self.leaving()
            self.both(lambda table: table.outbound(egress, leaving.copy(), now))
        elif kind < 0.75:
            coming, hairpin = self.coming(), rng.random() < 0.1
            self.both(lambda table: table.inbound(egress, coming.copy(), now, hairpin=hairpin))
        elif kind < 0.85:
            self._confirm(rng.randrange(64))
        elif kind < 0.95:
            self.advance()
        else:
            self._change(rng.randrange(6))

    def _confirm(self, number: int) -> None:
        rng, now = self.rng, self.now
        remote, port, outbound = rng.choice(REMOTES[:2]), rng.choice(FAR), rng.random() < 0.5
        acknowledgment = rng.choice((None, 1, 5, 0xFFFFFFF0))

        def confirm(table: Aliases) -> Any:
            link = self.link(number)(table)
            if link is None:
                return None
            seen = acknowledgment if outbound else None
            table.confirm(link, now - late_ns, outbound=outbound, packets=3, size_bytes=300, remote=remote,
                          remote_port=port, acknowledgment=seen, window=700)  # fmt: skip
            asked = table.holds_until(link, remote, port, now, outbound=not outbound)
            return [asked, int(table.is_half_closed(link, remote, port)), link]

        late_ns = rng.choice((0, SECOND_NS, 5 * SECOND_NS))
        self.both(confirm)

    def _change(self, kind: int) -> None:
        rng, now = self.rng, self.now
        if kind == 0:
            insides, egress = rng.choice((None, {INSIDES[0]})), rng.choice((None, Egress.VPN))
            self.both(lambda table: table.flush(insides, now, egress))
        elif kind == 1:
            forwards = [forward for forward in FORWARDS if rng.random() < 0.5]
            chosen, reserved = rng.choice(SETTINGS), RESERVED if rng.random() < 0.3 else ()
            self.both(lambda table: table.reconfigure(chosen, forwards, reserved, now))
        elif kind == 2 and self.kept:
            kept = rng.choice(self.kept)
            self.both(lambda table: table.restore(kept, now))
        elif kind == 3:
            number, remote = rng.randrange(64), rng.choice(REMOTES[:2])

            def peeked(table: Aliases) -> Any:
                link = self.link(number)(table)
                if link is None:
                    return None
                ends = link.inside, link.inside_port, remote
                return [
                    table.peek_outbound(link.egress, link.protocol, *ends),
                    table.peek_inbound(link.egress, link.protocol, link.outside_port, remote),
                ]

            self.both(peeked)
        elif kind == 4 and self.kept:
            kept = rng.choice(self.kept)
            self.both(lambda table: table.rest(kept, now + 120 * SECOND_NS))
        else:
            self.compare()


@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 400))
def test_both_stores_give_the_same_links_events_and_ports(seed: int, steps: int) -> None:
    """U1 to U6, T1 to T10, R1 to R5, C1 to C6: whatever is asked of them, in any order of time."""
    pair = Pair(random.Random(seed))
    for _ in range(steps):
        pair.step()
    pair.compare()
    pair.both(lambda table: table.flush(None, pair.now))
    pair.compare()


def opened(table: Aliases, number: int, egress: Egress = Egress.TAP1, now: int = SECOND_NS) -> Link | Drop:
    """A UDP link of one of many inside endpoints."""
    near = INSIDES[0] + number // 8000, 1024 + number % 8000
    return table.outbound(egress, udp(*near, REMOTES[0], 443), now)


def test_65536_links_with_their_indexes_take_less_than_12_megabytes() -> None:
    """P11: bytes that the store has allocated, used or not."""
    table = Aliases(AliasSettings(), (), (), random.Random(1), compiled_store())
    kind = compiled("alias.compiled.records", "CompiledLink")
    for number in range(65_536):
        assert isinstance(opened(table, number, Egress.TAP1 if number % 3 else Egress.VPN), kind | Drop)
    assert len(table) > 49_000, "the last quarter is for hosts with few links"
    store: Any = table.store
    assert 6_000_000 < store.allocated_bytes < 12_000_000


def test_a_link_that_has_ended_says_what_it_was_though_its_record_is_used_again() -> None:
    table = Aliases(AliasSettings(), (), (), random.Random(1), compiled_store())
    link = opened(table, 0)
    assert not isinstance(link, Drop)
    assert table.peek_outbound(link.egress, UDP, link.inside, link.inside_port, 0) is link, "one object for one record"
    before = described(link)[0]
    table.flush(None, SECOND_NS)
    other = opened(table, 1)
    assert other is not link
    assert described(link)[0] == before | {"expires_ns": 0}
    assert not link.is_live(0)


def test_a_compiled_link_can_neither_be_made_nor_written() -> None:
    table = Aliases(AliasSettings(), (), (), random.Random(1), compiled_store())
    link: Any = opened(table, 0)
    with pytest.raises(TypeError):
        type(link)()
    with pytest.raises(AttributeError):
        link.expires_ns = 0


def test_more_links_than_at_the_start_find_room_after_a_reload() -> None:
    table = Aliases(AliasSettings(max_links=10, max_links_per_host=10), (), (), random.Random(1), compiled_store())
    table.reconfigure(AliasSettings(max_links=20_000, max_links_per_host=20_000), (), (), SECOND_NS)
    links = [opened(table, number) for number in range(20_000)]
    assert len({link.outside_port for link in links if not isinstance(link, Drop)}) == 20_000
    assert len(table) == 20_000
