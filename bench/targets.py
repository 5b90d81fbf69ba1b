"""All fuzz targets by name, and one that is all of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from bench import (
    fuzz_bursts,
    fuzz_config,
    fuzz_control,
    fuzz_flow,
    fuzz_frames,
    fuzz_lanes,
    fuzz_pcap,
    fuzz_pieces,
    fuzz_relay,
    fuzz_texts,
    fuzz_tunnel,
)
from bench.choices import Choices
from bench.hostile import Target


def targets(captures: Sequence[bytes] = ()) -> dict[str, Target]:
    """Every target. `captures`: IP packets to begin from."""
    found = (
        fuzz_frames.target(captures),
        fuzz_flow.TARGET,
        fuzz_bursts.TARGET,
        fuzz_lanes.TARGET,
        fuzz_pieces.TARGET,
        fuzz_tunnel.TARGET,
        fuzz_relay.TARGET,
        fuzz_config.TARGET,
        fuzz_pcap.TARGET,
        fuzz_texts.TARGET,
        fuzz_control.TARGET,
    )
    return {target.name: target for target in found}


def together(chosen: Sequence[Target]) -> Target:
    """One target for a guided run that is too short to be shared out: the first byte says which one the rest is for."""

    def episode(rng: random.Random, most: int) -> int:
        assert isinstance(rng, Choices)
        data = rng.rest()
        return chosen[data[0] % len(chosen)].episode(Choices(data[1:]), most) if data else 0

    def samples() -> list[bytes]:
        return [bytes([at]) + sample for at, target in enumerate(chosen) for sample in target.samples()]

    words = [word for target in chosen for word in target.words]
    return Target("all", episode, True, samples, words, any(target.compiled for target in chosen))
