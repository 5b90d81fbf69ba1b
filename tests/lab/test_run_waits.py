"""`bridgectl run --wait`: bridges that are made after the start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.config.load import load
from bridge.daemon.setup import StartFailed
from bridge.daemon.waiting import missing_bridges, wait_for_bridges
from lab.namespace import Namespace
from lab.process import run
from tests.laboratory import needing_the_kernel

pytestmark = pytest.mark.lab
NAME = "waiting-lab"
CONFIGURATION = f"""\
[tap0]
address = "192.168.200.2/24"
bridge = "br0"
netns = "{NAME}"
[tap1]
address = "192.168.1.2/24"
gateway = "192.168.1.1"
bridge = "br1"
netns = "{NAME}"
"""


@pytest.fixture
def empty() -> Iterator[Namespace]:
    """A network namespace without bridges."""
    with needing_the_kernel():
        made = Namespace(NAME)
    yield made
    run(["ip", "netns", "del", NAME])


def test_a_bridge_that_is_made_later_is_waited_for(empty: Namespace, tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIGURATION)
    config = load(path, "check")
    assert missing_bridges(config) == ["br0 (tap0)", "br1 (tap1)"]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        empty.ip(f"link add br{2 - len(slept)} type bridge")

    assert wait_for_bridges(config, 60, clock=lambda: 0.2 * len(slept), sleep=sleep)
    assert slept == [0.2, 0.2]
    assert not wait_for_bridges(config, 0), "they are there"


def test_a_bridge_that_never_comes_ends_the_start_with_one_line(empty: Namespace, tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIGURATION)
    slept: list[float] = []
    with pytest.raises(StartFailed, match=r"^waited 1 s: there is no bridge br0 \(tap0\), no bridge br1 \(tap1\)$"):
        wait_for_bridges(load(path, "check"), 1, clock=lambda: sum(slept), sleep=slept.append)
    assert sum(slept) == pytest.approx(1)
