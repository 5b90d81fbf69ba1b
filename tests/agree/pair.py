"""Two NATs side by side, the kernel's and ours: the same frames into both, and what differs in what comes out.

Compared is everything: port, Ethernet header, every byte of the packet. Left out is only what each router chooses for
messages of its own: their IP identification (G31) and the header checksum that follows from it, which is recomputed
with scapy instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.packet import Packet as ScapyPacket

from tests.agree.kernel import KernelNat
from tests.conformance.harness import MAC_A, MAC_B, MAC_ISP, MAC_L, MAC_O, B, Scenario, scapy_sum

BETWEEN_S = 0.11
"""The virtual clock goes on so far with each frame: of our errors at most ten a second reach one host (G11)."""

Frames = list[tuple[str, bytes]]


def framed(port: str, packet: ScapyPacket | bytes, *, mac: str | None = None) -> bytes:
    """A packet as it comes in at a port: from A, B or the ISP router where that is a tap."""
    raw = bytes(packet)
    if port == "V" or (not isinstance(packet, bytes) and packet.haslayer(Ether)):
        return raw
    usual = MAC_ISP if port == "O" else MAC_B if raw[12:16] == bytes(map(int, B.split("."))) else MAC_A
    return bytes(Ether(src=mac or usual, dst=MAC_L if port == "L" else MAC_O, type=0x0800)) + raw


def packet_of(port: str, frame: bytes) -> bytes:
    """The IP packet in a frame."""
    return frame if port == "V" else frame[14:]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One frame, and what both made of it."""

    port: str
    sent: bytes
    kernel: Frames
    ours: Frames

    @property
    def differences(self) -> list[str]:
        """The differences in words; none where both agree."""
        return differences(self.port, self.kernel, self.ours)

    def __str__(self) -> str:
        lines = [f"{self.port}< {told(self.port, self.sent)}", *self.differences]
        for who, frames in (("kernel", self.kernel), ("ours", self.ours)):
            lines += [f"  {who}: {port}> {told(port, frame)}" for port, frame in frames] or [f"  {who}: nothing"]
        return "\n".join(lines)


class Pair:
    """A kernel without memory and a gateway without memory, with the same addresses."""

    def __init__(self, folder: Path, kernel: KernelNat, *, mtu: int | None = None) -> None:
        kernel.forget()
        self.kernel = kernel
        self.egress, self.X = kernel.egress, kernel.X
        narrow = {"O": 'gateway = "192.168.1.1"', "V": 'node = "hk"'}[self.egress]
        replace = ((narrow, f"{narrow}\nmtu = {mtu}"),) if mtu is not None else ()
        folder.mkdir(parents=True, exist_ok=True)
        self.ours = Scenario(folder, self.egress, replace=replace, offload="0.0.0.0/0\n")
        self.ours.checksums_matter = False  # what differs from the kernel's is found anyway

    def exchange(self, port: str, packet: ScapyPacket | bytes, *, mac: str | None = None) -> Exchange:
        """One frame into both."""
        frame = framed(port, packet, mac=mac)
        self.ours.advance(BETWEEN_S)
        ours = [(out.port, out.frame) for out in self.ours.inject(port, frame)]
        return Exchange(port, frame, self.kernel.exchange(port, frame), ours)

    def agree(self, port: str, packet: ScapyPacket | bytes, *, mac: str | None = None) -> Frames:
        """One frame into both, which must do the same; what they did."""
        both = self.exchange(port, packet, mac=mac)
        assert not both.differences, str(both)
        return both.ours

    def inside(self, packet: ScapyPacket | bytes) -> IP:
        """A packet from the LAN that both send on by the egress; what they sent."""
        return self._through("L", self.egress, packet)

    def outside(self, packet: ScapyPacket | bytes) -> IP:
        """A packet from the world that both send on to the LAN."""
        return self._through(self.egress, "L", packet)

    def answered(self, port: str, packet: ScapyPacket | bytes) -> IP:
        """A packet that both answer themselves."""
        return self._through(port, port, packet)

    def silent(self, port: str, packet: ScapyPacket | bytes) -> None:
        """A packet that both drop without a word."""
        assert self.agree(port, packet) == []

    def _through(self, port: str, way: str, packet: ScapyPacket | bytes) -> IP:
        ((out, frame),) = self.agree(port, packet)
        assert out == way
        return IP(packet_of(out, frame))

    def fragments(self, port: str, parts: list[ScapyPacket]) -> Frames:
        """Fragments of one datagram into both, which must send the same ones, in whatever order; ours."""
        kernel: Frames = []
        ours: Frames = []
        for part in parts:
            both = self.exchange(port, part)
            kernel += both.kernel
            ours += both.ours
        whole = Exchange(port, framed(port, parts[0]), sorted(kernel, key=_offset), sorted(ours, key=_offset))
        assert not whole.differences, str(whole)
        return whole.ours


def _offset(out: tuple[str, bytes]) -> int:
    return int(IP(packet_of(*out)).frag)


def differences(port: str, kernel: Frames, ours: Frames) -> list[str]:
    """Differences between two lists of frames that came out for a frame that went in at `port`."""
    found = []
    for number, (theirs, mine) in enumerate(zip_longest(kernel, ours)):
        if theirs is None or mine is None:
            found.append(f"frame {number}: {'ours alone' if theirs is None else 'the kernel alone'} sends it")
        elif theirs[0] != mine[0]:
            found.append(f"frame {number}: by {theirs[0]} and by {mine[0]}")
        elif _comparable(port, *theirs) != _comparable(port, *mine):
            pairs = zip_longest(_comparable(port, *theirs), _comparable(port, *mine))
            places = [at for at, (one, other) in enumerate(pairs) if one != other]
            found.append(f"frame {number}: bytes {places[:20]} differ")
    return found


def _comparable(port: str, out: str, frame: bytes) -> bytes:
    """The frame, without the identification and header checksum of what the router itself has made."""
    start = 0 if out == "V" else 14
    raw = frame[start:]
    assert scapy_sum(raw[: (raw[0] & 15) * 4]) == 0, f"header checksum: {raw.hex()}"
    if out != port:
        return frame
    return frame[: start + 4] + b"\0\0" + frame[start + 6 : start + 10] + b"\0\0" + frame[start + 12 :]


def told(port: str, frame: bytes) -> str:
    """A frame for people, and as bytes."""
    raw = packet_of(port, frame)
    return f"{IP(raw).summary() if len(raw) >= 20 else 'short'} {frame.hex()}"
