"""Random conversations and the packets of real captures: both NATs agree, but for what the list of deviations names."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.agree.captured import moved
from tests.agree.conftest import WIDE
from tests.agree.conversations import Chance, Piece, mixed
from tests.agree.deviations import explained
from tests.agree.kernel import KernelNat
from tests.agree.pair import Exchange, Pair, framed, packet_of

pytestmark = pytest.mark.lab

STORIES = 40
"""Of about twenty packets each, for each egress."""


class Tally:
    """How many packets were compared, and which deviations were met on the way."""

    def __init__(self) -> None:
        self.packets = 0
        self.met: Counter[str] = Counter()

    def follow(self, pair: Pair, pieces: Iterable[Piece], last: dict[str, bytes], name: str) -> None:
        """Play the pieces into both, until a known deviation lets their states part."""
        for side, packets in pieces:
            both = self._exchange(pair, "L" if side == "in" else pair.egress, packets)
            self.packets += len(packets)
            if both.differences:
                known = explained(both, pair.egress, pair.X)
                assert known is not None, f"{name}, packet {self.packets}: {both}"
                self.met[f"{known.row}: {known.name}"] += 1
                return
            for port, frame in both.ours:
                last["out" if port == pair.egress else "in"] = packet_of(port, frame)

    @staticmethod
    def _exchange(pair: Pair, port: str, packets: list[bytes]) -> Exchange:
        kernel, ours = [], []
        for packet in packets:
            both = pair.exchange(port, packet)
            kernel += both.kernel
            ours += both.ours
        if len(packets) > 1:  # the kernel sends fragments in order once it has all, ours as they come

            def offset(out: tuple[str, bytes]) -> int:
                return int.from_bytes(packet_of(*out)[6:8], "big") & 0x1FFF

            kernel.sort(key=offset)
            ours.sort(key=offset)
        return Exchange(port, framed(port, packets[0]), kernel, ours)


@pytest.mark.parametrize("part", range(4))
def test_random_conversations(
    kernels: dict[tuple[str, int], KernelNat], egress: str, tmp_path: Path, part: int
) -> None:
    """P1, P6, P10: a few hundred packets of all kinds, interleaved."""
    tally = Tally()
    for seed in range(part * STORIES // 4, (part + 1) * STORIES // 4):
        pair = Pair(tmp_path / str(seed), kernels[egress, WIDE[egress]])
        chance = Chance(random.Random(seed), pair.X)
        tally.follow(pair, mixed(chance), chance.last, f"seed {seed}")
    assert tally.packets > 100


@pytest.mark.parametrize("folder", ["real", "malformed"])
def test_captured_packets(
    kernels: dict[tuple[str, int], KernelNat], egress: str, tmp_path: Path, shared: Path, folder: str
) -> None:
    """P1, P10: what others captured, moved between A and the world; odd and broken packets among them."""
    tally = Tally()
    for path in sorted((shared / "pcaps" / folder).glob("*.pcap*")):
        pair = Pair(tmp_path / path.name, kernels[egress, WIDE[egress]])
        tally.follow(pair, moved(path, pair.X), {}, path.name)
    assert tally.packets > 500
