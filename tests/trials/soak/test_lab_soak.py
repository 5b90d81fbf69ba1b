"""Half a minute of what `python -m trials.soak.live` does for thirty, and that it can fail."""

from __future__ import annotations

import pytest

from tests.laboratory import needing_the_kernel
from trials.soak.live import slope, soak

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]


def test_nothing_is_lost_or_left_by_two_daemons_under_traffic_that_comes_and_goes() -> None:
    with needing_the_kernel():
        found = soak(0.3, seed=2, tell=lambda line: None)
    assert found.faults == []
    gateway, exit_ = found.samples["gateway"], found.samples["exit"]
    assert gateway[-1].packets - gateway[0].packets > 500
    assert exit_[-1].packets > exit_[0].packets
    assert max(sample.links for sample in gateway) > 20
    assert max(sample.held for sample in gateway) > 0, "fragments waited"
    assert found.actions > 3
    assert {"lan3", "lan4", "gw", "isp", "exit"} <= set(found.said)


def test_the_slope_of_what_grows_is_told() -> None:
    assert slope([(0, 5), (1, 7), (2, 9)]) == pytest.approx(2)
    assert slope([(0, 5), (1, 5)]) == 0
    assert slope([(3, 5)]) == 0
