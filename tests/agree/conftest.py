"""The kernel's NAT for a module of tests: made once, forgetful before each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.private import private_names
from tests.agree.kernel import KernelNat, kernel_nats
from tests.agree.pair import Pair
from tests.laboratory import needing_the_kernel

WIDE = {"O": 1500, "V": 1420}
NARROW_BYTES = 1400


@pytest.fixture(scope="module")
def kernels() -> Iterator[dict[tuple[str, int], KernelNat]]:
    """By egress and MTU."""
    wanted = [(egress, mtu) for egress in "OV" for mtu in (WIDE[egress], NARROW_BYTES)]
    with needing_the_kernel(), private_names(), kernel_nats(*wanted) as made:
        yield dict(zip(wanted, made, strict=True))


@pytest.fixture(params=["O", "V"])
def egress(request: pytest.FixtureRequest) -> str:
    """Both egresses."""
    return str(request.param)


@pytest.fixture
def pair(kernels: dict[tuple[str, int], KernelNat], egress: str, tmp_path: Path) -> Pair:
    """Both NATs with the egress's usual MTU."""
    return Pair(tmp_path, kernels[egress, WIDE[egress]])


@pytest.fixture
def narrow(kernels: dict[tuple[str, int], KernelNat], egress: str, tmp_path: Path) -> Pair:
    """Both NATs with an egress of 1400 bytes."""
    return Pair(tmp_path, kernels[egress, NARROW_BYTES], mtu=NARROW_BYTES)
