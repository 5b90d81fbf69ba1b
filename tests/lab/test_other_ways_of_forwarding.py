"""The four flows by every way that frames can take: devices without virtio headers, plain Python, several threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.flows import FLOWS, PacketFlow
from lab.topology import CONFIGURATION, HOSTS, Lab

pytestmark = pytest.mark.lab

BARE_DEVICES = """
import functools, sys
from pathlib import Path
from bridge.ports import netif as link
link.open_device = functools.partial(link.open_device, vnet_header=False)
from bridge.daemon.daemon import run
sys.exit(run(Path(sys.argv[1])))
"""
"""A kernel that gives no virtio header: super-frames are cut, and checksums completed, by the gateway."""
WAYS = {
    "bare devices": ("", {}, BARE_DEVICES),
    "bare devices, plain": ("", {"TAPBRIDGE_FAST": "0"}, BARE_DEVICES),
    "plain": ("", {"TAPBRIDGE_FAST": "0"}, None),
    "two threads": ("\n[fast_path]\nthreads = 2\n", {}, None),
    "three threads": ("\n[fast_path]\nthreads = 3\n", {}, None),
}


@pytest.fixture(scope="module")
def served_lab(bare_lab: Lab) -> Lab:
    bare_lab.serve()
    for name in (*HOSTS, "isp"):  # receivers verify what they get
        bare_lab.namespaces[name].switch_offloads_off("eth0")
    return bare_lab


@pytest.fixture(scope="module", params=WAYS)
def other_lab(served_lab: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    more_configuration, environment, program = WAYS[request.param]
    served_lab.configure(CONFIGURATION + more_configuration)
    served_lab.start_gateway(environment, program)
    yield served_lab
    assert served_lab.stop_gateway() == 0
    served_lab.remove_gateway()


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_datagrams_and_transfers_come_through_whole(other_lab: Lab, flow: PacketFlow) -> None:
    for words in (("ask", "1400", "20"), ("ask", "4000", "3"), ("transfer", "20000000", "20000000")):
        answer = other_lab.client(flow.client, words[0], flow.remote, *words[1:])
        assert answer["ok"], answer
    stats = other_lab.ask("stats")
    assert not any(stats["drops"][reason] for reason in ("port.malformed", "transport.short", "walk.fault"))
    assert any(known["fast"] for known in other_lab.ask("flows")["flows"])


def test_questions_are_answered_and_the_end_is_quick_while_it_forwards(other_lab: Lab) -> None:
    """Questions fork: no thread may be inside the table then."""
    flow = FLOWS[2]
    running = other_lab.namespaces[flow.client].start_python(
        "-m", "lab.peers", "transfer", flow.remote, "150000000", "150000000"
    )
    for _ in range(20):
        assert other_lab.ask("flows")["flows"] is not None
        assert other_lab.ask("alias.show")["links"] is not None
    assert running.document()["ok"]
    running.stop()


def test_all_flows_pass_whole_at_once_while_reloads_outdate_every_decision(other_lab: Lab) -> None:
    with ThreadPoolExecutor(len(FLOWS)) as clients:
        moving = [
            clients.submit(other_lab.client, flow.client, "transfer", flow.remote, "10000000", "10000000")
            for flow in FLOWS
        ]
        while not all(one.done() for one in moving):
            other_lab.ask("reload")
    assert all(one.result()["ok"] for one in moving)
    assert other_lab.ask("stats")["drops"]["walk.fault"] == 0
