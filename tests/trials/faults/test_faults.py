"""Faults under traffic, as `python -m trials.faults --short` plays them: what must hold of each is judged there.

The daemon lives or ends as it should and is there again, every flow passes again, TCP survives with its SHA-256, flows
that a fault does not concern lose nothing, the others lose nothing outside its time, the gateway drops for no other
reason, memory and descriptors are what they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from lab.topology import Lab
from tests.laboratory import needing_the_kernel
from trials.faults.all import CASES
from trials.faults.case import Case
from trials.faults.play import play
from trials.faults.report import text
from trials.faults.stage import FaultStage

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def stage(bare_lab: Lab) -> Iterator[FaultStage]:
    with ExitStack() as stack:
        yield FaultStage(bare_lab, stack)


@pytest.mark.parametrize("case", [case for case in CASES if case.is_tested], ids=lambda case: case.name)
def test_a_fault_costs_no_more_than_its_cause_explains(stage: FaultStage, case: Case) -> None:
    with needing_the_kernel():
        report = play(stage, case, case.short_s)
    assert not report.faults, text(report)
