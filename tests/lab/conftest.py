"""The lab for a module of tests: the whole topology with its far ends, and where wanted a gateway in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.walk import balance
from lab.topology import Lab, topology
from lab.wireguard import FarEnd, demand_wireguard
from tests.laboratory import needing_the_kernel


@pytest.fixture(scope="module")
def bare_lab() -> Iterator[Lab]:
    """The topology without a gateway."""
    with needing_the_kernel(), topology() as lab:
        yield lab


@pytest.fixture(scope="module")
def lab(bare_lab: Lab) -> Iterator[Lab]:
    """The topology with far ends and a gateway that runs through the whole module."""
    bare_lab.serve()
    bare_lab.start_gateway()
    yield bare_lab
    assert unbalanced(bare_lab) == ""


@pytest.fixture(scope="module")
def wired(bare_lab: Lab) -> Lab:
    """The topology with far ends, a cable for the tunnel, and no gateway."""
    with needing_the_kernel():
        demand_wireguard(bare_lab)
    bare_lab.serve()
    bare_lab.join_outside()
    return bare_lab


@pytest.fixture
def far(wired: Lab) -> Iterator[FarEnd]:
    """A WireGuard end with fresh keys that is not started yet, and no gateway before and after."""
    end = FarEnd(wired)
    yield end
    says = unbalanced(wired)
    end.stop()
    wired.remove_gateway()
    for path in (*wired.folder.glob("*.conf"), wired.folder / "tunnel.json"):
        path.unlink(missing_ok=True)
    assert says == ""


def unbalanced(lab: Lab) -> str:
    """The frames that its gateway's counters owe the law of `bridge.walk.balance`, where one runs."""
    if lab.gateway is None or not lab.gateway.is_running:
        return ""
    return balance.difference(balance.accounts_of(lab.ask("stats")), at_rest=False)
