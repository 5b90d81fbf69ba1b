"""Threads that serve ports, with real kernels: everything passes, and neither reloads nor questions nor the end of it
meet them at a bad moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from signal import SIGHUP

import pytest

from lab.flows import FLOWS, PacketFlow
from lab.topology import CONFIGURATION, HOSTS, OFFLOAD_LIST, OFFLOADED, Lab
from tests.compiled import compiled_bursts
from tests.lab.far_end import until
from trials.fuzz.targets.flow import packet
from wire.ipv4 import UDP
from wire.units import address_int

pytestmark = pytest.mark.lab

STOP_S = 2.0
TRANSFER_S = 60.0
BYTES = "60000000"
TRACED = packet(UDP, (address_int(HOSTS["lan3"]), 5000, address_int(OFFLOADED), 53))


@pytest.fixture(scope="module", autouse=True)
def far_ends(bare_lab: Lab) -> None:
    bare_lab.serve()


@pytest.fixture
def threaded(bare_lab: Lab, threads: int) -> Iterator[Lab]:
    """A gateway whose ports are served by so many threads."""
    compiled_bursts()
    bare_lab.configure(CONFIGURATION + f"\n[fast_path]\nthreads = {threads}\n")
    bare_lab.start_gateway()
    yield bare_lab
    bare_lab.remove_gateway()


def transfer(lab: Lab, flow: PacketFlow) -> bool:
    return bool(lab.client(flow.client, "transfer", flow.remote, BYTES, BYTES, timeout_s=TRANSFER_S)["ok"])


@pytest.mark.parametrize("threads", [2, 3])
def test_reloads_and_questions_in_the_middle_of_transfers_cost_nothing(threaded: Lab) -> None:
    gateway = threaded.gateway
    assert gateway is not None
    asked = 0
    with ThreadPoolExecutor(len(FLOWS)) as pool:
        transfers = [pool.submit(transfer, threaded, flow) for flow in FLOWS]
        while not all(one.done() for one in transfers):
            threaded.configure(threaded.config_path.read_text(), OFFLOAD_LIST + f"203.0.113.{asked % 250}/32\n")
            gateway.signal(SIGHUP)
            threaded.ask("flows")
            threaded.ask("trace", port="tap0", packet=TRACED.hex())
            threaded.ask("stats")
            with closing(threaded.watch("tap1")) as frames:
                next(frames)
            asked += 1
        assert all(one.result() for one in transfers)
    assert asked > 2
    stats = threaded.ask("stats")
    assert not stats["drops"].get("walk.fault"), stats
    assert threaded.stop_gateway() == 0


@pytest.mark.parametrize("threads", [2])
def test_the_end_is_prompt_in_the_middle_of_a_transfer(threaded: Lab) -> None:
    """Runs last: the far end of the transfer ends with it."""
    client = threaded.namespaces["lan3"].start_python("-m", "lab.peers", "transfer", OFFLOADED, BYTES, BYTES)
    try:
        until(lambda: threaded.ask("stats")["ports"]["tap1"]["tx_packets"] > 500, "the transfer is under way")
        begun = time.monotonic()
        assert threaded.stop_gateway() == 0
        assert time.monotonic() - begun < STOP_S
    finally:
        client.stop()
