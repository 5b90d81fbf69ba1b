"""The walk leaves no cycles behind, so the daemon searches for garbage only rarely
(`bridge.daemon.memory.collect_rarely`)."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from bridge.config.errors import ConfigError
from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.config.load import load
from bridge.loop.loop import Loop
from trials.fuzz.targets.frames import WORLDS, Feed, gateway_of


@pytest.fixture
def quiet() -> Iterator[None]:
    """Nothing is collected but by reference counts."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_the_walk_of_any_frames_leaves_no_cycles(quiet: None) -> None:
    gateway = gateway_of(WORLDS[0].configuration, 1)
    frames = list(islice(Feed(WORLDS[0], random.Random(1), []), 2000))
    gc.collect()
    for number, (port, frame, claims) in enumerate(frames):
        gateway.receive(port, frame, number * 10_000_000, claims)
        gateway.tick(number * 10_000_000)
    del port, frame, claims
    assert gc.collect() == 0


def test_a_reload_leaves_no_cycles_whether_it_is_taken_or_not(tmp_path: Path, quiet: None) -> None:
    gateway = gateway_of(WORLDS[0].configuration, 1)
    path = tmp_path / "gateway.toml"
    path.write_text(WORLDS[0].configuration)
    (tmp_path / "offload.txt").write_text("203.0.113.0/24\n")
    gc.collect()
    for number in range(2):
        config = load(path, "replay")
        gateway.reconfigure(gateway_settings(config), routes_from(config), number)
    assert gc.collect() == 0
    path.write_text('[tap0]\naddress = "nowhere"\n')
    with pytest.raises(ConfigError):
        load(path, "replay")
    gc.collect()  # what pytest keeps of the exception
    assert not [found for found in gc.get_objects() if isinstance(found, ConfigError)]


def test_a_fault_of_our_own_leaves_no_cycles(quiet: None, caplog: pytest.LogCaptureFixture) -> None:
    gateway = gateway_of(WORLDS[0].configuration, 1)
    loop = Loop(gateway)
    gc.collect()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway._intake, "_ip", None)
        loop.walk("tun0", [(bytes(40), None)] * 20)
    caplog.clear()
    loop.close()
    assert len(gateway.counters.drops_by_port) == 1
    assert gc.collect() == 0
