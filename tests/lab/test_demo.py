"""`bridgectl demo`, smaller: every check that it prints holds, whoever is the other end, and without a lab too."""

from __future__ import annotations

import pytest

from lab.demo import PEERS, main
from lab.topology import topology
from lab.wireguard import demand_wireguard
from tests.laboratory import needing_the_kernel


@pytest.mark.lab
@pytest.mark.parametrize("who", PEERS)
def test_the_demo_holds_with_each_other_end(who: str, capsys: pytest.CaptureFixture[str]) -> None:
    with needing_the_kernel(), topology() as lab:
        if who == "wireguard-go":
            demand_wireguard(lab, in_kernel=False)
    assert main(["--peer", who, "--megabytes", "2"]) == 0, capsys.readouterr().out
    told = capsys.readouterr().out
    assert "All checks held" in told
    assert "No lab here" not in told


def test_the_rehearsal_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--replay"]) == 0, capsys.readouterr().out
