"""The load's programs on the loopback, each test on an address of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.process import CommandFailed, LabProcess
from trials.bench import usage
from trials.bench.load import DATAGRAM_PORT, Batch


@contextmanager
def running(*words: str) -> Iterator[LabProcess]:
    process = LabProcess([sys.executable, "-m", "trials.bench.load", *words], listens=True)
    try:
        assert process.line() == "ready"
        yield process
    finally:
        process.stop()


def client(*words: str) -> dict[str, float]:
    command = [sys.executable, "-m", "trials.bench.load", *words]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    document: dict[str, float] = json.loads(printed)
    return document


def test_a_batch_carries_each_payload_as_one_datagram() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
    ):
        far.bind(("127.0.0.1", 0))
        far.settimeout(5)
        near.connect(far.getsockname())
        batch = Batch([b"one", b"", b"three"])
        assert batch.send(near.fileno(), 1, 64) == 2
        assert [far.recv(64), far.recv(64)] == [b"", b"three"]
        assert batch.send(near.fileno(), 0, 64) == 3
        assert Batch([bytes(64)] * 2).receive(far.fileno()) == 2


def test_datagrams_are_counted_and_keep_their_pace() -> None:
    host = "127.7.0.1"
    with running("sink", host) as sink, running("datagrams", host) as sender:
        sender.say(json.dumps({"rate": 1000, "seconds": 0.2}))
        sent = json.loads(sender.line())["sent"]
        sink.say("")
        assert json.loads(sink.line())["received"] == sent
        assert 0 < sent <= 200


@pytest.mark.skipif(os.geteuid() != 0, reason="raw packets are sent as root")
def test_many_flows_are_whole_packets_from_as_many_ports() -> None:
    host = "127.7.0.2"
    with running("datagrams", host) as sender, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind((host, DATAGRAM_PORT))
        far.settimeout(5)
        order = {"rate": 1000, "seconds": 0.1, "flows": 10, "first_port": 40_000, "source": "127.7.0.3"}
        sender.say(json.dumps(order))
        senders = {far.recvfrom(64)[1] for _ in range(10)}
        assert senders == {("127.7.0.3", port) for port in range(40_000, 40_010)}


def test_connections_and_streams_are_served() -> None:
    host = "127.7.0.4"
    with running("serve", host):
        told = client("connections", host, "0.2", "2")
        assert told["done"] > 0
        assert told["failed"] == 0
        for direction in ("up", "down"):
            assert client("stream", host, direction, "2", "0.2")["bytes"] > 0


def test_numbered_datagrams_tell_when_the_first_came_and_what_is_missing() -> None:
    host = "127.7.0.5"
    with running("arrivals", host) as arrivals, running("numbered", host, "500") as sender:
        arrivals.say("first")
        assert json.loads(arrivals.line())["first_s"] > 0
        sender.say("enough")
        sent = json.loads(sender.line())["sent"]
        arrivals.say("all")
        told = json.loads(arrivals.line())
        assert told["received"] == told["last"] + 1 - told["first"] == sent


def test_a_process_that_reads_no_more_is_a_failure_and_is_still_cleaned_up() -> None:
    process = LabProcess(
        [sys.executable, "-c", "import sys; sys.stdin.close(); print('closed', flush=True); input"], listens=True
    )
    try:
        assert process.line() == "closed"
        process.wait()
        with pytest.raises(CommandFailed, match="reads no more"):
            process.say("hello")
    finally:
        process.stop()


def test_what_a_process_used_is_read_with_its_children() -> None:
    with running("serve", "127.7.0.6") as served:
        family = usage.with_children([served.pid])
        assert len(family) == 5
        assert usage.resident_bytes(family) > usage.resident_bytes([served.pid]) > 1 << 20
        assert usage.cpu_seconds(family) > 0


def test_what_ran_beside_is_a_number_of_cores() -> None:
    seen = usage.beside(0.05)
    assert 0 <= seen.cores <= (os.cpu_count() or 1) * 1.5
    assert seen.stolen >= 0
