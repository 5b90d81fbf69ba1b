"""ARP frames with every field said, and what a scenario's ARP tables hold, for the rows of section 2.

Where the gateway sends a packet for a LAN host says what its table holds: at once to a MAC address, or a question
first.
"""

from __future__ import annotations

from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import (
    ADDRESS_L,
    ARP,
    HOST,
    IP,
    MAC_L,
    UDP,
    Ether,
    Out,
    Scenario,
)
from wire.units import address_text, mac_text

C, MAC_C = "192.168.200.20", "02:aa:00:00:00:14"
D, MAC_D = "192.168.200.21", "02:aa:00:00:00:15"
ISP = "192.168.1.1"
OTHER_MAC = "02:bb:00:00:00:99"
NOBODY, BROADCAST = "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"


def arp(
    op: int = 1,
    sha: str = MAC_C,
    spa: str = C,
    tha: str = NOBODY,
    tpa: str = ADDRESS_L,
    *,
    to: str = BROADCAST,
    by: str | None = None,
) -> Ether:
    """An ARP frame with every field said: `to` and `by` are its Ethernet addresses."""
    return Ether(dst=to, src=by or sha, type=0x0806) / ARP(op=op, hwsrc=sha, psrc=spa, hwdst=tha, pdst=tpa)


def answer(sha: str = MAC_C, spa: str = C, *, ours: str = ADDRESS_L, mac: str = MAC_L) -> Ether:
    """A reply to us alone."""
    return arp(2, sha, spa, mac, ours, to=mac)


def datagram(to: str = C, number: int = 0) -> IP:
    """A packet from the host behind tun0 to a LAN host."""
    return IP(src=HOST, dst=to, id=number) / UDP(sport=5000, dport=9) / number.to_bytes(4, "big")


def requests(outs: list[Out]) -> list[tuple[str, str]]:
    """The ARP requests among frames: (address asked for, MAC address asked)."""
    return [(out.arp.pdst, out.eth.dst) for out in outs if out.arp is not None and out.arp.op == 1]


def packets(outs: list[Out]) -> list[Out]:
    return [out for out in outs if not out.is_ethernet or out.arp is None]


def mac_of(s: Scenario, address: str) -> str | None:
    """Where a packet for a LAN host goes at once; None where the gateway has to ask (or has asked) for it."""
    found = packets(s.inject("U", datagram(address)))
    assert len(found) <= 1
    return str(found[0].eth.dst) if found else None


def states(s: Scenario, port: str = "tap0") -> dict[str, tuple[str | None, str]]:
    """The table as `bridgectl arp` prints it: address to (MAC address, state)."""
    return {
        address_text(entry.ip): (mac_text(entry.mac) if entry.mac else None, entry.state)
        for entry in s.gateway.arp[port].entries(s.now)
        if not entry.static
    }


def learned(make: MakeScenario, **options: object) -> Scenario:
    """A gateway that C has asked for its address, so that it knows C."""
    s = make("V", **options)
    assert len(s.inject("L", arp())) == 1
    return s
