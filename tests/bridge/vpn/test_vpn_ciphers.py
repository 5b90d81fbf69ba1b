"""Which cipher the daemon takes, its helpers' beginning and end, and what `bridgectl stats` says of them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bridge.control.answers.stats import sealing
from bridge.privsep.privileges import drop_capabilities
from bridge.vpn import ciphers as cores
from bridge.vpn.ciphers import STOP_S, Cores, open_cores
from tests.compiled import compiled_cipher
from tunnel.primitives import Cipher, TransportKey

KEY = TransportKey(bytearray(range(32)))
LONG = [bytes([number]) * 1420 for number in range(200)]
SEALED = Cipher().seal_burst(KEY, 3, 50, LONG, 1420)


@contextmanager
def opened(threads: int | None = None, **environment: str) -> Iterator[Cores]:
    found = open_cores(threads, environment)
    try:
        yield found
    finally:
        found.close()


def helpers() -> int:
    return sum(thread.name.startswith("seal ") for thread in threading.enumerate())


def test_compiled_and_a_thread_for_each_core_is_what_is_taken_where_nothing_is_said() -> None:
    compiled_cipher()
    with opened() as found:
        assert (found.kind, found.threads) == ("compiled", len(os.sched_getaffinity(0)))
        assert sealing(found) == {"cipher": "compiled", "threads": found.threads}


@pytest.mark.parametrize("threads", [None, 1, 4])
def test_the_environment_forces_the_plain_cipher_on_one_thread(threads: int | None) -> None:
    with opened(threads, TAPBRIDGE_FAST="0") as found:
        assert sealing(found) == {"cipher": "plain", "threads": 1}
        assert found.seal_burst(KEY, 3, 50, LONG, 1420) == SEALED
        assert helpers() == 0


@pytest.mark.parametrize("value", ["1", "", "yes"])
def test_any_other_value_forces_nothing(value: str) -> None:
    compiled_cipher()
    with opened(1, TAPBRIDGE_FAST=value) as found:
        assert found.kind == "compiled"


def test_where_nothing_was_compiled_the_plain_one_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "CompiledCipher", None)
    with opened(4) as found:
        assert (found.kind, found.threads) == ("plain", 1)
        assert found.seal_burst(KEY, 3, 50, LONG, 1420) == SEALED


def test_without_a_tunnel_nothing_seals() -> None:
    assert sealing(None) == {"cipher": None, "threads": 0}


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_long_bursts_come_back_whole_and_in_order_on_any_number_of_threads(threads: int) -> None:
    compiled_cipher()
    with opened(threads) as found:
        for _ in range(50):
            assert found.seal_burst(KEY, 3, 50, LONG, 1420) == SEALED
            assert found.open_burst([(KEY, datagram) for datagram in SEALED]) == Cipher().open_burst(
                [(KEY, datagram) for datagram in SEALED]
            )
        assert helpers() == threads - 1


def test_helpers_are_made_by_the_first_long_burst_and_leave_at_once() -> None:
    compiled_cipher()
    with opened(4) as found:
        found.seal_burst(KEY, 3, 50, LONG[:8], 1420)
        found.open_burst([(KEY, SEALED[0])])
        assert helpers() == 0
        found.open_burst([(KEY, datagram) for datagram in SEALED])
        assert helpers() == 3
        before = time.monotonic()
        found.close()
        assert time.monotonic() - before < STOP_S
        assert helpers() == 0
        assert found.threads == 1
        assert found.seal_burst(KEY, 3, 50, LONG, 1420) == SEALED, "what still leaves while all ends"
        assert helpers() == 0


def test_a_mistake_in_a_long_burst_comes_back_to_the_caller_and_harms_no_other_burst() -> None:
    compiled_cipher()
    with opened(3) as found:
        for _ in range(20):
            with pytest.raises(ValueError, match="a packet of 70000 bytes"):
                found.seal_burst(KEY, 3, 50, [*LONG, bytes(70_000)], 1420)
            assert found.seal_burst(KEY, 3, 50, LONG, 1420) == SEALED


def test_where_no_thread_can_be_had_the_caller_works_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiled_cipher()

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with opened(3) as found:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert found.seal_burst(KEY, 3, 50, LONG, 1420) == SEALED
        assert found.threads == 1
        assert "1 threads, not 3" in caplog.text


def test_helpers_have_no_more_rights_than_the_loop_kept() -> None:
    """In a process of its own: rights that were given up do not come back."""
    compiled_cipher()
    code = f"""
import threading
from bridge.vpn.ciphers import open_cores
from bridge.privsep.privileges import {drop_capabilities.__name__}
from pathlib import Path
from tunnel.primitives import TransportKey
found = open_cores(3, {{}})
{drop_capabilities.__name__}()
found.seal_burst(TransportKey(bytearray(32)), 1, 0, [bytes(1420)] * 100, 1420)
rights = [
    line
    for status in Path("/proc/self/task").glob("*/status")
    for line in status.read_text().splitlines()
    if line.startswith(("CapEff", "CapPrm", "NoNewPrivs"))
]
assert len(rights) == 9, rights
assert len(set(rights)) == 3, rights
found.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**os.environ, "PYTHONPATH": "."})


def test_bursts_that_follow_each_other_use_the_same_memory_again() -> None:
    """In a process of its own: what was once said to the allocator stays said."""
    code = """
import resource
from bridge.vpn.ciphers import open_cores
from bridge.daemon.memory import keep_freed_memory
from tunnel.primitives import TransportKey
keep_freed_memory()
found, key, packets = open_cores(1), TransportKey(bytearray(32)), [bytes(1420)] * 700
found.seal_burst(key, 1, 0, packets, 1420)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    found.seal_burst(key, 1, 0, packets, 1420)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
assert faults < 1000, f"{faults} pages were made anew"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**os.environ, "PYTHONPATH": "."})
