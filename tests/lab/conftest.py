"""The lab for a module of tests: the whole topology with its far ends, and where wanted a gateway in it."""

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


@pytest.fixture(scope="module")
def lab(bare_lab: Lab) -> Lab:
    """The topology with far ends and a gateway that runs through the whole module."""
    bare_lab.serve()
    bare_lab.start_gateway()
    return bare_lab
