"""The lab for trials that are played in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.topology import Lab, topology
from tests.laboratory import needing_the_kernel


@pytest.fixture(scope="module")
def bare_lab() -> Iterator[Lab]:
    """The topology without a gateway."""
    with needing_the_kernel(), topology() as lab:
        yield lab
