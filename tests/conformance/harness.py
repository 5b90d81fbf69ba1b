"""A gateway on the bench: packets in at a virtual clock, packets out, every one of them checked by scapy.

The notation is that of the checklist: L, O, U and V are tap0, tap1, tun0 and the tunnel's inside; A and B are LAN
hosts, E and F remotes, X our address on the egress in use. A scenario writes down what went in and what came out; at
its end the same input goes through `bridge.replay.run` and must give the same bytes, and the transcript is compared
with a golden file (`pytest --update-goldens` rewrites it; read the difference before you commit it).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from scapy.layers.inet import ICMP, IP, TCP, UDP, ICMPerror, IPerror, TCPerror, UDPerror
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw

from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.config.load import load
from bridge.walk import balance
from bridge.walk.effects import Event, Send
from bridge.walk.gateway import Gateway
from wire.drop import Drop
from wire.units import seconds_ns

__all__ = [
    "ARP",
    "ICMP",
    "IP",
    "TCP",
    "UDP",
    "Ether",
    "ICMPerror",
    "IPerror",
    "Raw",
    "Scenario",
    "TCPerror",
    "UDPerror",
]

A, B = "192.168.200.10", "192.168.200.11"
MAC_A, MAC_B, MAC_ISP = "02:aa:00:00:00:0a", "02:aa:00:00:00:0b", "02:aa:00:00:00:01"
MAC_L, MAC_O = "02:00:00:00:c8:02", "02:00:00:00:01:02"
E, F = "203.0.113.5", "203.0.113.6"
HOST = "192.168.192.211"
ADDRESS_L, ADDRESS_O, ADDRESS_V = "192.168.200.2", "192.168.1.2", "192.168.192.210"
PORTS = {"L": "tap0", "O": "tap1", "U": "tun0", "V": "vpn"}
LETTERS = {port: letter for letter, port in PORTS.items()}  # other nodes of the tunnel keep their names: "vpn:jp"
START_NS = seconds_ns(1_000_000)
_WHOLE_BYTES, _SHOWN_BYTES = 300, 128

CONFIGURATION = f"""
[tap0]
address = "{ADDRESS_L}/24"
mac = "{MAC_L}"
[tap0.arp]
"{A}" = "{MAC_A}"
"{B}" = "{MAC_B}"
[tap1]
address = "{ADDRESS_O}/24"
mac = "{MAC_O}"
gateway = "192.168.1.1"
[tap1.arp]
"192.168.1.1" = "{MAC_ISP}"
[tun0]
address = "{HOST}/24"
[vpn]
address = "{ADDRESS_V}"
node = "hk"
[offload]
prefixes = ["offload.txt"]
"""

# `replace=NO_STATIC`: every MAC address has to be asked for.
NO_STATIC = ((f'"{A}" = "{MAC_A}"\n"{B}" = "{MAC_B}"\n', ""), (f'"192.168.1.1" = "{MAC_ISP}"\n', ""))


@dataclass(frozen=True, slots=True)
class Out:
    """One frame that left: when (seconds since the start), by which port letter, and its bytes. `is_ethernet`: they
    begin with an Ethernet header."""

    t: float
    port: str
    frame: bytes
    is_ethernet: bool

    @property
    def eth(self) -> Ether:
        """The frame as scapy reads it (tap ports only)."""
        return Ether(self.frame)

    @property
    def ip(self) -> IP:
        """The IP packet as scapy reads it."""
        return IP(self.frame[14:] if self.is_ethernet else self.frame)

    @property
    def arp(self) -> ARP | None:
        """The ARP packet, or None."""
        return self.eth.getlayer(ARP) if self.is_ethernet else None


class Scenario:
    """A gateway with the checklist's addresses. `egress`: "O" or "V", where E and F are reached. `toml` is appended to
    the configuration; `replace` are (old, new) texts changed in it before; `files` are further files beside it, by
    their path. `configuration` stands in for the usual one."""

    def __init__(
        self,
        folder: Path,
        egress: str = "O",
        toml: str = "",
        replace: tuple[tuple[str, str], ...] = (),
        seed: int = 0,
        offload: str = "203.0.113.0/24\n198.51.100.0/24\n",
        files: Mapping[str, str] = MappingProxyType({}),
        configuration: str = CONFIGURATION,
    ) -> None:
        self.configuration = configuration
        self.egress = egress
        self.X = ADDRESS_O if egress == "O" else ADDRESS_V
        self.seed = seed
        self.path = folder / "gateway.toml"
        (folder / "offload.txt").write_text(offload if egress == "O" else "")
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        self.write(toml, replace)
        config = load(self.path, "replay")
        self.gateway = Gateway(gateway_settings(config), routes_from(config), random.Random(seed), events=True)
        self.ethernet = {letter for letter, port in PORTS.items() if port in self.gateway.arp}
        self.announced = False
        self.now = START_NS
        self.taken: list[tuple[int, str, bytes]] = []
        self.given: list[tuple[int, str, bytes]] = []
        self.transcript: list[str] = []
        self.drops: list[str] = []
        self.leases: list[tuple[object, object]] = []  # change and address of each event `lease`
        self.checksums_matter = True
        self.passed: Counter[tuple[str, str]] = Counter()  # frames in and out, by (port, `<` or `>`)
        self.replayable = True  # set False where the scenario reaches into the gateway by hand

    def write(self, toml: str = "", replace: tuple[tuple[str, str], ...] = ()) -> None:
        """Write the configuration file (again)."""
        text = self.configuration + toml
        for old, new in replace:
            assert old in text, old
            text = text.replace(old, new)
        self.path.write_text(text)

    def reload(self, toml: str = "", replace: tuple[tuple[str, str], ...] = (), offload: str | None = None) -> None:
        """Rewrite the configuration (and the offload list) and take it, as SIGHUP does."""
        self.replayable = False
        if offload is not None:
            (self.path.parent / "offload.txt").write_text(offload)
        self.write(toml, replace)
        config = load(self.path, "replay")
        self._collect(self.gateway.reconfigure(gateway_settings(config), routes_from(config), self.now))

    def start(self) -> list[Out]:
        """Begin the RFC 5227 probes and announcements, as `run` and `replay --announce` do."""
        assert self.now == START_NS, "a gateway starts at the beginning"
        self.announced = True
        return self._collect(self.gateway.start(self.now))

    def begin(self) -> list[Out]:
        """Begin as every replay does: the DHCP client asks, nothing is announced."""
        return self._collect(self.gateway.start(self.now, announces=False))

    def inject(self, port: str, packet: ScapyPacket | bytes, *, mac: str | None = None) -> list[Out]:
        """Put a packet in at a port letter, now; what comes out at once. IP packets get the Ethernet header of the
        usual sender (A's, B's or the ISP router's MAC address; `mac` says another) where the port is a tap."""
        is_framed = port not in self.ethernet or isinstance(packet, bytes) or packet.haslayer(Ether)
        if not is_framed and not packet.haslayer(ARP):
            usual = MAC_ISP if port == "O" else MAC_B if packet[IP].src == B else MAC_A
            packet = Ether(src=mac or usual, dst=MAC_L if port == "L" else MAC_O, type=0x0800) / packet
        elif not is_framed:
            packet = Ether(src=mac or packet[ARP].hwsrc, dst="ff:ff:ff:ff:ff:ff") / packet
        frame = bytes(packet)
        self.taken.append((self.now, port, frame))
        self._write(port, "<", frame)
        return self._collect(self.gateway.receive(PORTS.get(port, port), frame, self.now))

    def inside(self, packet: ScapyPacket | bytes) -> list[Out]:
        """L< packet."""
        return self.inject("L", packet)

    def outside(self, packet: ScapyPacket | bytes) -> list[Out]:
        """O< or V<, the egress of this scenario."""
        return self.inject(self.egress, packet)

    def advance(self, seconds: float) -> list[Out]:
        """Let the clock run on; timers fire at their own time. What they sent."""
        end = self.now + seconds_ns(seconds)
        found: list[Out] = []
        while (due := self.gateway.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            found += self._collect(self.gateway.tick(self.now))
        self.now = end
        return found

    def balance(self) -> None:
        """Every frame that came in has one fate, and the counters know as many frames as this bench does."""
        balance.check(self.gateway)
        if self.replayable:
            for name, port in self.gateway.counters.ports.items():
                told = port.rx_packets, port.tx_packets
                assert told == (self.passed[name, "<"], self.passed[name, ">"]), f"{name}: frames in, frames out"

    def _collect(self, effects: list[Send | Event]) -> list[Out]:
        found = []
        for effect in effects:
            if isinstance(effect, Event):
                if effect.kind == "lease":
                    self.leases.append((effect.facts["change"], effect.facts["address"]))
                    told = " ".join(str(fact) for fact in effect.facts.values())
                    self.transcript.append(f"{self._t()} {LETTERS[effect.port]}  lease {told}")
                if effect.kind == "drop":
                    self.drops.append(str(effect.facts["reason"]))
                    self.transcript.append(
                        f"{self._t()} {LETTERS.get(effect.port, effect.port)}  drop {effect.facts['reason']}"
                    )
                continue
            assert effect.gso is None, "a plain packet became a super-frame"
            port = LETTERS.get(effect.port, effect.port)
            out = Out((self.now - START_NS) / 1e9, port, bytes(effect.frame), port in self.ethernet)
            self.given.append((self.now, port, out.frame))
            self._write(port, ">", out.frame)
            if self.checksums_matter:
                check_frame("L" if out.is_ethernet else "V", out.frame)
            found.append(out)
        self.balance()
        return found

    def _t(self) -> str:
        return f"{(self.now - START_NS) / 1e9:+.6f}"

    def _write(self, port: str, arrow: str, frame: bytes) -> None:
        self.passed[PORTS.get(port, port).partition(":")[0], arrow] += 1
        told = frame.hex()
        if len(frame) > _WHOLE_BYTES:  # the headers to read, the rest as its digest
            told = f"{told[: 2 * _SHOWN_BYTES]}... {len(frame)} bytes, sha256 {sha256(frame).hexdigest()[:16]}"
        self.transcript.append(f"{self._t()} {port}{arrow} {told}")

    @property
    def dropped(self) -> str | None:
        """The newest drop reason."""
        return self.drops[-1] if self.drops else None

    def count(self, reason: Drop) -> int:
        """How many drops had this reason."""
        return self.gateway.counters.drops[reason]


def check_frame(port: str, frame: bytes) -> None:
    """Recompute every checksum of a frame with scapy and compare; assert that it parses and carries no rest."""
    raw = frame
    if port in "LO":
        if Ether(frame).type == 0x0806:
            assert len(frame) == 60, "an ARP frame is padded to the shortest frame of the wire"
            return
        raw = frame[14:]
    packet = IP(raw)
    assert packet.len == len(raw), "total length and frame disagree"
    assert packet.ttl > 0, "a TTL of zero left"
    header = bytearray(raw[: packet.ihl * 4])
    header[10:12] = b"\0\0"
    assert scapy_sum(bytes(header)) == packet.chksum, "IP header checksum"
    if packet.frag or packet.flags.MF:
        return
    payload = raw[packet.ihl * 4 :]
    if packet.proto == 1:
        assert scapy_sum(payload) == 0, "ICMP checksum"
    elif packet.proto in (6, 17, 136, 33):
        if packet.proto == 17 and payload[6:8] == b"\0\0":
            return
        covered = payload[: int.from_bytes(payload[4:6], "big")] if packet.proto == 17 else payload
        pseudo = raw[12:20] + bytes((0, packet.proto)) + len(covered).to_bytes(2, "big")
        if packet.proto not in (6, 17):
            return
        assert scapy_sum(pseudo + covered) == 0, "transport checksum"


def scapy_sum(data: bytes) -> int:
    """The Internet checksum as scapy computes it: the oracle is not the project's code."""
    from scapy.utils import checksum as scapy_checksum  # noqa: PLC0415 - scapy.utils is slow to import, once is enough

    return int(scapy_checksum(data))
