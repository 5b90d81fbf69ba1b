"""A TCP connection through the NAT, segment by segment, for the tests of its states."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.packet import Raw

from tests.alias.nat import BOTH, A, E, Nat, passed
from wire.drop import Drop

both_egresses = pytest.mark.parametrize("egress", BOTH, ids=lambda egress: egress.label)

INSIDE_START, OUTSIDE_START = 1000, 5_000_000
SYN_OPTIONS: list[tuple[str, Any]] = [("MSS", 1460), ("NOP", None), ("WScale", 7)]


class Call:
    """A TCP connection between A:5000 and a remote, one segment at a time, at the NAT's clock."""

    def __init__(self, nat: Nat, inside: str = A, port: int = 5000, remote: str = E, remote_port: int = 80) -> None:
        self.nat, self.inside, self.port, self.remote, self.remote_port = nat, inside, port, remote, remote_port
        self.outside_port = port
        self.sent, self.received = INSIDE_START, OUTSIDE_START

    def out(self, flags: str, payload: bytes = b"", **fields: Any) -> IP | Drop:
        """A segment from inside; the sequence numbers follow the connection unless `fields` say otherwise."""
        fields = {"seq": self.sent, "ack": self.received if "A" in flags else 0, "window": 1024, **fields}
        tcp = TCP(sport=self.port, dport=self.remote_port, flags=flags, **fields)
        answer = self.nat.out(IP(src=self.inside, dst=self.remote) / tcp / Raw(payload))
        if not isinstance(answer, Drop):
            self.outside_port = answer[TCP].sport
        if "seq" not in fields or fields["seq"] == self.sent:
            self.sent += len(payload) + ("S" in flags) + ("F" in flags)
        return answer

    def back(self, flags: str, payload: bytes = b"", **fields: Any) -> IP | Drop:
        """A segment from outside."""
        fields = {"seq": self.received, "ack": self.sent if "A" in flags else 0, "window": 1024, **fields}
        tcp = TCP(sport=self.remote_port, dport=self.outside_port, flags=flags, **fields)
        answer = self.nat.back(IP(src=self.remote, dst=self.nat.x) / tcp / Raw(payload))
        if fields["seq"] == self.received:
            self.received += len(payload) + ("S" in flags) + ("F" in flags)
        return answer

    def opened(self) -> Call:
        """The three segments of the handshake."""
        passed(self.out("S", options=SYN_OPTIONS))
        passed(self.back("SA", options=SYN_OPTIONS))
        passed(self.out("A"))
        assert self.state == "EST"
        return self

    @property
    def state(self) -> str:
        return self.nat.link().state
