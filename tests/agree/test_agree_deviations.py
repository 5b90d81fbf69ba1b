"""Every known deviation from the kernel's masquerade is still there, and is what the list says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agree.conftest import NARROW_BYTES, WIDE
from tests.agree.deviations import DEVIATIONS, Deviation, outcome, sums_right
from tests.agree.kernel import KernelNat
from tests.agree.pair import Pair
from trials.conformance.checklist import ROWS

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda deviation: f"{deviation.row}: {deviation.name}")
def test_a_deviation_is_there(
    kernels: dict[tuple[str, int], KernelNat], egress: str, tmp_path: Path, deviation: Deviation
) -> None:
    mtu = NARROW_BYTES if deviation.narrow else WIDE[egress]
    pair = Pair(tmp_path, kernels[egress, mtu], mtu=mtu if deviation.narrow else None)
    kernel, ours = [], []
    story = deviation.story(pair.X)
    for number, (side, packet) in enumerate(story):
        both = pair.exchange("L" if side == "in" else egress, packet)
        kernel += both.kernel
        ours += both.ours
        is_last = number == len(story) - 1
        if not is_last and not deviation.narrow:
            assert not both.differences, f"it differs before its end: {both}"
            kernel, ours = [], []
    assert (outcome(egress, kernel), outcome(egress, ours)) == (deviation.kernel, deviation.ours), str(both)
    assert kernel != ours, "both do the same now: take it off the list"
    if deviation.row in ("P1", "G29"):
        assert (sums_right(kernel), sums_right(ours)) == (False, True)


def test_every_deviation_names_a_row_of_the_checklist() -> None:
    assert {deviation.row for deviation in DEVIATIONS} <= set(ROWS)
    names = [deviation.name for deviation in DEVIATIONS]
    assert len(names) == len(set(names))
