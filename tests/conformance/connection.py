"""One TCP connection through the gateway, segment by segment, each of them compared with what went in."""

from __future__ import annotations

from typing import Any

from scapy.packet import Packet as ScapyPacket

from bridge.control.answers import alias
from bridge.control.answers.question import Subject
from tests.conformance.harness import IP, TCP, A, E, Scenario
from tests.conformance.packets import only, tcp, way
from wire.drop import Drop

ISS, IRS = 0xFFFFFFF0, 0x7FFFFFF8  # both sequence spaces wrap or turn negative within a few bytes
MODULUS = 1 << 32
CLIENT, SERVER = (A, 5000), (E, 80)


class Connection:
    """Segments of one connection between an inside and an outside endpoint, each checked on its way through."""

    def __init__(self, s: Scenario, inside: tuple[str, int] = CLIENT, outside: tuple[str, int] = SERVER) -> None:
        self.s = s
        self.inside, self.outside = inside, outside
        self.name = (s.X, inside[1])

    def out(self, flags: str, data: bytes = b"", *, seq: int = 1, ack: int = 1, **fields: Any) -> None:
        """A segment from inside; `seq` and `ack` count from the initial numbers."""
        sent = tcp(
            self.inside, self.outside, flags, data, seq=(ISS + seq) % MODULUS, ack=self._ack(flags, IRS, ack), **fields
        )
        got = only(self.s.inside(sent))
        assert way(got) == (self.s.egress, self.name, self.outside)
        self._same(sent, got.ip)

    def come(self, flags: str, data: bytes = b"", *, seq: int = 1, ack: int = 1, **fields: Any) -> None:
        """A segment from outside."""
        sent = self._from_outside(flags, data, seq, ack, fields)
        got = only(self.s.outside(sent))
        assert way(got) == ("L", self.outside, self.inside)
        self._same(sent, got.ip)

    def gone(self) -> None:
        """The outside knocks, and nobody is there."""
        assert self.s.outside(self._from_outside("A", b"", 1, 1, {})) == []
        assert self.s.dropped == Drop.ALIAS_NO_LINK

    def open(self) -> None:
        """The three-way handshake from inside."""
        self.out("S", seq=0)
        self.come("SA", seq=0)
        self.out("A")

    @property
    def state(self) -> str:
        """As `bridgectl alias` shows it."""
        links = alias.show(Subject(self.s.gateway), {}, self.s.now)["links"]
        return "".join(link["state"] for link in links if link["inside"] == "{}:{}".format(*self.inside))

    def _from_outside(self, flags: str, data: bytes, seq: int, ack: int, fields: dict[str, Any]) -> ScapyPacket:
        numbers = {"seq": (IRS + seq) % MODULUS, "ack": self._ack(flags, ISS, ack)}
        return tcp(self.outside, self.name, flags, data, **numbers, **fields)

    @staticmethod
    def _ack(flags: str, start: int, ack: int) -> int:
        return (start + ack) % MODULUS if "A" in flags else 0

    @staticmethod
    def _same(sent: ScapyPacket, got: ScapyPacket) -> None:
        """Nothing but names, checksums and TTL has changed."""
        before, after = IP(bytes(sent))[TCP], got[TCP].copy()
        after.sport, after.dport, after.chksum = before.sport, before.dport, before.chksum
        assert bytes(after) == bytes(before)
