"""Row D12: the lease on disk, across starts."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from bridge.state.leases import LeaseFile, beside
from dhcp.lease import Lease

MAC, OTHER = bytes.fromhex("020000000102"), bytes.fromhex("020000000103")
LEASE = Lease(0xC0A80132, 24, 0xC0A80101, 0xC0A80101, 3600, 1800, 3150)


def kept(path: Path, mac: bytes = MAC, wall_s: float = 1_000_000.0) -> Lease | None:
    file = LeaseFile(path, mac, lambda: wall_s)
    found = file.read()
    file.close()
    return found


def written(path: Path, lease: Lease | None = LEASE) -> None:
    file = LeaseFile(path, MAC, lambda: 1_000_000.0)
    file.write(lease)
    file.close()


def test_d12_a_lease_is_read_by_the_next_start_until_it_is_over(tmp_path: Path) -> None:
    path = tmp_path / "run" / "control.lease"
    written(path)
    assert kept(path) == kept(path, wall_s=1_003_599.0) == LEASE
    assert kept(path, wall_s=1_003_600.0) is None
    assert path.stat().st_mode & 0o777 == 0o600


def test_d12_an_infinite_lease_is_never_over(tmp_path: Path) -> None:
    lease = LEASE._replace(duration_s=None, renew_s=None, rebind_s=None)
    written(tmp_path / "lease", lease)
    assert kept(tmp_path / "lease", wall_s=9e9) == lease


def test_d12_a_lease_that_was_given_up_is_forgotten(tmp_path: Path) -> None:
    written(tmp_path / "lease")
    written(tmp_path / "lease", None)
    assert kept(tmp_path / "lease") is None
    assert (tmp_path / "lease").read_bytes() == b""


def test_d12_a_shorter_lease_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    written(tmp_path / "lease", LEASE._replace(domain="x" * 200))
    written(tmp_path / "lease")
    assert kept(tmp_path / "lease") == LEASE


def test_d12_a_torn_file_and_one_of_another_mac_address_are_no_lease(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bridge.state.leases")
    path = tmp_path / "lease"
    written(path)
    assert kept(path, OTHER) is None
    path.write_bytes(path.read_bytes()[:-20])
    assert kept(path) is None
    assert caplog.messages == [f"{path}: it holds no lease of ours; the client begins anew"] * 2


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_a_path_that_is_no_file_is_told_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    path = tmp_path / "lease"
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "link": lambda: path.symlink_to("elsewhere")}[kind]()
    file = LeaseFile(path, MAC)
    file.write(LEASE)
    assert file.read() is None
    file.close()
    (told,) = caplog.messages
    assert told.startswith(str(path))
    assert told.endswith("a restart will not ask for the same address")
    assert not (tmp_path / "elsewhere").exists()


def test_the_file_is_beside_the_control_socket() -> None:
    assert beside(Path("/run/x/control.sock")) == Path("/run/x/control.lease")
    assert beside(Path("/run/x/site.a")) == Path("/run/x/site.a.lease")
