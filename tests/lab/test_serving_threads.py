"""Threads serve the ports beside the loop: all flows at once, while the daemon answers, forks and reloads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.flows import FLOWS
from lab.topology import CONFIGURATION, Lab
from tests.compiled import compiled_table

pytestmark = pytest.mark.lab

SIZE = "20000000"
PORTS = 4


def test_all_flows_pass_whole_at_once_while_questions_fork_the_daemon_and_reloads_outdate_it(bare_lab: Lab) -> None:
    compiled_table()
    lab = bare_lab
    lab.serve()
    lab.configure(CONFIGURATION + "[fast_path]\nthreads = 4\n")
    gateway = lab.start_gateway()
    threads = [path.read_text().strip() for path in Path(f"/proc/{gateway.pid}/task").glob("*/comm")]
    assert len(threads) == 1 + PORTS
    with ThreadPoolExecutor(len(FLOWS)) as clients:
        moving = [clients.submit(lab.client, flow.client, "transfer", flow.remote, SIZE, SIZE) for flow in FLOWS]
        asked = 0
        while not all(one.done() for one in moving):
            assert "flows" in lab.ask("flows")  # answered in a fork
            lab.ask("reload")
            asked += 1
    for flow, one in zip(FLOWS, moving, strict=True):
        answer = one.result()
        assert answer["ok"], answer
        assert answer["seen_as"].partition(":")[0] == flow.seen_as
    assert asked
    stats = lab.ask("stats")
    assert stats["fast_path"]["compiled"]
    assert stats["drops"]["walk.fault"] == 0
    assert lab.stop_gateway() == 0
