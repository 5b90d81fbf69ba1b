"""A tap and the MTU of its bridge (report 05): the operator's devices stay as they are."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.config.load import ConfigError, load
from bridge.ports.bridges import mtu_of
from tests.laboratory import needing_the_kernel

pytestmark = pytest.mark.lab
NAME = "jumbo-lab"
CONFIGURATION = f"""\
[tap0]
address = "192.168.200.2/24"
bridge = "br0"
netns = "{NAME}"
"""


@pytest.fixture
def jumbo() -> Iterator[str]:
    """A network namespace with a bridge of 9000 bytes."""
    with needing_the_kernel():
        for command in (
            f"ip netns add {NAME}",
            f"ip -n {NAME} link add br0 type bridge",
            f"ip -n {NAME} link set br0 mtu 9000 up",
        ):
            subprocess.run(command.split(), check=True)
    yield NAME
    subprocess.run(["ip", "netns", "del", NAME], check=True)


def loaded(folder: Path, more: str = "") -> int:
    path = folder / "gateway.toml"
    path.write_text(CONFIGURATION + more)
    tap0 = load(path, "check").tap0
    assert tap0 is not None
    assert ("mtu" in tap0.model_fields_set) == bool(more)
    return tap0.mtu


def test_a_tap_without_an_mtu_takes_its_bridges(jumbo: str, tmp_path: Path) -> None:
    assert mtu_of("br0", jumbo) == 9000
    assert loaded(tmp_path) == 9000
    assert loaded(tmp_path, "mtu = 9000\n") == 9000


def test_another_mtu_than_the_bridges_is_refused_with_its_line(jumbo: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r":5: tap0.mtu: 1500 is not the MTU of br0, 9000: give that"):
        loaded(tmp_path, "mtu = 1500\n")


@pytest.mark.parametrize("bridge", ["br9", ""])
def test_a_bridge_that_cannot_be_asked_leaves_the_default(tmp_path: Path, bridge: str) -> None:
    assert mtu_of(bridge, None) is None
    assert mtu_of("br0", "no-such-namespace") is None
    assert loaded(tmp_path) == 1500
