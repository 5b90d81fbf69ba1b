"""All fuzz targets by name, and one that is all of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from trials.fuzz.choices import Choices
from trials.fuzz.hostile import Target
from trials.fuzz.targets import bursts, config, control, dhcp, flow, frames, lanes, pcap, pieces, relay, texts, tunnel


def targets(captures: Sequence[bytes] = ()) -> dict[str, Target]:
    """Every target. `captures`: IP packets to begin from."""
    found = (
        frames.target(captures),
        flow.TARGET,
        bursts.TARGET,
        lanes.TARGET,
        pieces.TARGET,
        tunnel.TARGET,
        relay.TARGET,
        dhcp.TARGET,
        config.TARGET,
        pcap.TARGET,
        texts.TARGET,
        control.TARGET,
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
