"""Any calls to a port in any order: no exception, bounded, no frame lost, one request a second."""

from __future__ import annotations

import random

from arp_bench import A_MAC, B_MAC, OTHER_MAC, OWN, OWN_MAC, REQUEST, arp_frame
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from arp.effects import ArpEffect, FrameDropped, GaveUp, Release, Transmit
from arp.port import ArpPort
from arp.table import LIFETIME_NS, EntryState
from arp.waiting import WaitingLimits
from wire.units import SECOND_NS

NETWORK = OWN & ~0xF
HOSTS = st.integers(NETWORK, NETWORK + 15)
MACS = st.sampled_from([A_MAC, B_MAC, OTHER_MAC, OWN_MAC, b"\xff" * 6, bytes(6)])
LIMITS = WaitingLimits(frames_per_address=3, bytes_per_address=3000, frames_total=10, bytes_total=9000)


@given(st.binary(max_size=80), st.integers(0, 10**19 // 2))
def test_random_bytes_never_raise(frame: bytes, now: int) -> None:
    port = ArpPort(OWN, 28, OWN_MAC, {}, random.Random(0))
    (effect,) = port.receive(frame, now)
    assert isinstance(effect, FrameDropped)


@given(st.data())
def test_one_changed_byte_never_raises(data: st.DataObject) -> None:
    port = ArpPort(OWN, 28, OWN_MAC, {}, random.Random(0))
    frame = bytearray(arp_frame(REQUEST, OWN + 1, A_MAC, OWN))
    frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    assert port.receive(frame[: data.draw(st.integers(0, 60))], 0)
    assert port.used <= 1


class PortMachine(RuleBasedStateMachine):
    """A /28 in the hands of an operator, of traffic, and of an enemy."""

    @initialize(start=st.booleans(), epoch=st.sampled_from([0, 1_700_000_000 * SECOND_NS]))
    def begin(self, start: bool, epoch: int) -> None:
        self.now = epoch
        self.port = ArpPort(OWN, 28, OWN_MAC, {}, random.Random(1), limits=LIMITS)
        self.asked: dict[bytes, list[int]] = {}
        self.contested: set[bytes] = set()  # whose MAC address was ever in question
        self.open: set[int] = set()
        self.held = 0
        if start:
            self.take(self.port.start(self.now))

    def take(self, effects: list[ArpEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Transmit):
                target, sender = effect.frame[38:42], effect.frame[28:32]
                if effect.frame[20:22] == b"\0\x01" and sender == OWN.to_bytes(4, "big") and target != sender:
                    asked = [at for at in self.asked.get(target, ()) if self.now - at < SECOND_NS]
                    self.asked[target] = [*asked, self.now]
                    alone = target not in self.contested
                    assert len(asked) < (1 if alone else 4), "more requests within a second than a question has"
            elif isinstance(effect, Release | GaveUp):
                assert isinstance(effect.waiting, int)
                self.open.remove(effect.waiting)

    @rule(address=HOSTS, size=st.integers(1, 4000))
    def leave(self, address: int, size: int) -> None:
        if self.port.lookup(address, self.now) is None:
            self.held += 1
            self.open.add(self.held)
            self.take(self.port.hold(address, self.held, size, self.now))

    @rule(
        opcode=st.sampled_from([1, 1, 2, 2, 3]),
        sender=st.one_of(HOSTS, st.just(0)),
        mac=MACS,
        wanted=st.one_of(st.just(OWN), HOSTS),
        to=st.sampled_from([OWN_MAC, b"\xff" * 6]),
    )
    def hear(self, opcode: int, sender: int, mac: bytes, wanted: int, to: bytes) -> None:
        self.contested.update(
            entry.ip.to_bytes(4, "big") for entry in self.port.entries(self.now) if entry.ip == sender
        )
        self.take(self.port.receive(arp_frame(opcode, sender, mac, wanted, to=to, link_source=A_MAC), self.now))

    @rule(nanoseconds=st.one_of(st.integers(0, SECOND_NS), st.integers(0, 100 * SECOND_NS)))
    def pass_time(self, nanoseconds: int) -> None:
        end = self.now + nanoseconds
        while (due := self.port.next_deadline()) is not None and due <= end:
            self.now = max(due, self.now)
            self.take(self.port.tick(self.now))
            later = self.port.next_deadline()
            assert later is None or later > self.now, "a tick at its deadline makes progress"
        self.now = end

    @rule(nanoseconds=st.integers(0, 10 * SECOND_NS))
    def oversleep(self, nanoseconds: int) -> None:
        self.now += nanoseconds
        self.take(self.port.tick(self.now))

    @rule(address=HOSTS)
    def probe(self, address: int) -> None:
        self.take(self.port.probe(address, self.now))

    @rule(address=HOSTS)
    def suspect(self, address: int) -> None:
        self.contested.add(address.to_bytes(4, "big"))
        self.take(self.port.suspect(address, self.now))

    @rule(address=HOSTS, mac=MACS)
    def confirm(self, address: int, mac: bytes) -> None:
        self.port.confirm(address, mac, self.now)

    @rule(address=HOSTS)
    def delete(self, address: int) -> None:
        self.port.delete(address)

    @rule(address=HOSTS.filter(lambda address: address not in (OWN, NETWORK, NETWORK + 15)))
    def add(self, address: int) -> None:
        self.take(self.port.add(address, A_MAC))

    @rule()
    def flush(self) -> None:
        self.port.flush()

    @invariant()
    def the_books_balance(self) -> None:
        entries = list(self.port.entries(self.now))
        assert len(entries) == self.port.used <= 13
        assert self.port.waiting_frames == len(self.open) <= LIMITS.frames_total
        assert self.port.waiting_bytes <= LIMITS.bytes_total
        for entry in entries:
            assert self.port.is_resolvable(entry.ip)
            assert (entry.mac is None) == (entry.state in ("incomplete", "failed"))
            assert entry.mac is None or entry.mac in (A_MAC, B_MAC, OTHER_MAC)
            assert entry.static == (entry.state == "static")
        if not any(entry.state == "incomplete" for entry in entries):
            assert not self.open, "frames wait only where a question is open"

    @invariant()
    def every_queue_is_in_order_of_time(self) -> None:
        table = self.port._resolver.table
        for state in EntryState:
            times = [table.since_ns(index) for index in table.queued(state)]
            assert times == sorted(times)
            assert not times or state in LIFETIME_NS


TestPort = PortMachine.TestCase
TestPort.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
