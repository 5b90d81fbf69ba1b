"""Row D12: the lease on disk."""

from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhcp import saved
from dhcp.lease import Lease
from dhcp.options import ClasslessRoute
from dhcp.saved import SavedLease

MAC, OTHER = bytes.fromhex("020000000102"), bytes.fromhex("020000000103")
LEASE = Lease(
    0xC0A80132,
    24,
    0xC0A80101,
    0xC0A80101,
    3600,
    1800,
    3150,
    (ClasslessRoute(0, 0, 0xC0A80101),),
    (0xC0A80101,),
    "isp",
    1400,
)
SAVED = SavedLease(MAC, LEASE, 1_800_000_000)


@pytest.mark.parametrize(
    "kept",
    [
        SAVED,
        SavedLease(
            MAC, LEASE._replace(duration_s=None, renew_s=None, rebind_s=None, domain=None, mtu_bytes=None), None
        ),
        SavedLease(MAC, LEASE._replace(routes=(), dns=(), gateway=0), 0),
    ],
)
def test_d12_a_lease_is_read_back_as_it_was_written(kept: SavedLease) -> None:
    assert saved.read(saved.write(kept), MAC) == kept


def test_d12_a_lease_of_another_mac_address_is_ignored() -> None:
    assert saved.read(saved.write(SAVED), OTHER) is None


@given(st.integers(0, 400), st.integers(1, 255))
def test_d12_a_changed_byte_is_noticed(at: int, change: int) -> None:
    data = bytearray(saved.write(SAVED))
    at %= len(data)
    data[at] ^= change
    assert saved.read(bytes(data), MAC) in (None, SAVED), "line ends may be lost"


def test_d12_a_torn_file_is_ignored() -> None:
    data = saved.write(SAVED)
    assert [length for length in range(len(data) - 1) if saved.read(data[:length], MAC) is not None] == []
    assert saved.read(data + data, MAC) is None


@given(st.binary(max_size=200))
def test_d12_other_bytes_are_ignored(data: bytes) -> None:
    assert saved.read(data, MAC) is None


def forged(**changes: object) -> bytes:
    values = json.loads(saved.write(SAVED).partition(b"\n")[2])
    values.update(changes)
    body = json.dumps({name: value for name, value in values.items() if value != "gone"}).encode()
    return b"tapbridge lease 1 %08x\n" % zlib.crc32(body) + body


@pytest.mark.parametrize(
    "changes",
    [
        {"address": 0},
        {"address": 2**32},
        {"address": "1.2.3.4"},
        {"address": True},
        {"prefix_length": 33},
        {"prefix_length": 0},
        {"routes": [[0, 40, 1]]},
        {"routes": [[1, 0, 1]]},
        {"routes": [[1]]},
        {"routes": 5},
        {"dns": ["x"]},
        {"domain": 7},
        {"expires_s": "soon"},
        {"more": 1},
        {"server": "gone"},
        {"mac": "gone"},
        {"mac": 5},
    ],
)
def test_d12_values_out_of_range_are_ignored(changes: dict[str, object]) -> None:
    assert saved.read(forged(), MAC) == SAVED
    assert saved.read(forged(**changes), MAC) is None


def test_d12_json_that_is_no_table_is_ignored() -> None:
    for body in (b"[]", b"5", b"null", b"[" * 50_000):
        assert saved.read(b"tapbridge lease 1 %08x\n" % zlib.crc32(body) + body, MAC) is None
