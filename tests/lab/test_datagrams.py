"""The tunnel's socket over a kernel that carries many datagrams in one piece."""

from __future__ import annotations

import pytest

from lab.topology import Lab

pytestmark = pytest.mark.lab

TO_AND_FRO = """
import random, select
from bridge.ports.datagrams import DatagramSocket
from tunnel.effects import Datagram, Endpoint

one, other = DatagramSocket(5001), DatagramSocket(5002)
there, nowhere = Endpoint(bytes((127, 0, 0, 1)), 5002), Endpoint(bytes((203, 0, 113, 1)), 5002)
sizes = [1000] * 150 + [500, 32, 1452, 1452, 148] + [60_000, 60_000] + [32] * 100
sent = [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]
assert not one.send_burst([Datagram(there, datagram) for datagram in sent])
got = []
while len(got) < len(sent) and select.select([other], [], [], 5)[0]:
    got += other.read_burst(64)
assert [datagram.data for datagram in got] == sent
assert {datagram.source for datagram in got} == {Endpoint(there.address, 5001)}
assert other.read_burst(64) == []
lost, last = Datagram(nowhere, b"lost"), Datagram(there, b"last")
assert dict(one.send_burst([lost, last, lost])) == {"port.down": 2}
assert [datagram.data for datagram in other.read_burst(64)] == [b"last"]
try:
    DatagramSocket(5001)
except OSError:
    print("taken")
"""


def test_datagrams_of_all_sizes_pass_whole_and_in_order(bare_lab: Lab) -> None:
    """Runs of one size go in pieces of up to 64 and are cut again; what cannot leave holds up nothing."""
    assert bare_lab.namespaces["exit"].python("-c", TO_AND_FRO) == "taken\n"
