"""Two minutes with real clocks on both sides, once: what the virtual clock shows of us alone is shown with WireGuard.

Three far ends at once, all under traffic: one that we call, one that calls us, and one whose name gets another address.
"""

from __future__ import annotations

import os
import select
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pytest

from lab.other_end import OUR_PORT
from lab.outside import OUTER_EXIT, OUTER_GATEWAY
from lab.process import LabProcess
from lab.sniffer import Sniffer, datagram_in
from lab.topology import TUNNELLED, Lab
from lab.wireguard import FarEnd
from tests.lab.far_end import peer, run, until
from tunnel.messages import INITIATION_BYTES, MessageKind

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

STREAM_S, RATE = 128, 200
COUNT = STREAM_S * RATE
CALLS_US, NAMED = "9.9.9.9", "7.7.7.7"
FIRST_ADDRESS, SECOND_ADDRESS = "198.51.100.78", "198.51.100.77"
GIVES_UP_S = 60.0  # what is left, once the streams have ended, of 15 s without an answer and 20 tries in vain


class Record(NamedTuple):
    """The record of the run: the streams' documents by far end, and initiations by their two ends."""

    streams: dict[str, dict[str, Any]]
    initiations: Counter[tuple[str, str]]
    missed_frames: int
    moved_to: str


@pytest.fixture(scope="module")
def two_minutes(wired: Lab) -> Iterator[Record]:
    exit_ = wired.namespaces["exit"]
    called = FarEnd(wired)
    caller = FarEnd(wired, name="sg", device="wg1", port=51822, serves=CALLS_US, beside=called)
    named = FarEnd(wired, name="jp", device="wg2", port=51823, serves=NAMED, beside=called)
    wired.name_hosts({"jp.example": FIRST_ADDRESS})
    exit_.ip(f"addr add {FIRST_ADDRESS}/24 dev outer")
    wired.namespaces["gw"].switch_offloads_off("outer")  # what leaves in one piece would be one frame to the sniffer
    sniffer = Sniffer(exit_, "outer")
    started: list[LabProcess] = []
    try:
        called.start()
        named.start()
        run(
            wired,
            called.configuration()
            + caller.table("9.9.9.0/24", endpoint=None)
            + named.table("7.7.7.0/24", endpoint="jp.example:51823"),
        )
        caller.call()
        for address in (CALLS_US, NAMED):
            started.append(exit_.start_python("-m", "lab.peers", "serve", address))
            assert started[-1].line() == "ready"
        until(lambda: peer(wired, "sg")["state"] == "up", "it has called us")
        streams = {}
        for name, client, address in (("hk", "lan3", TUNNELLED), ("sg", "lan4", CALLS_US), ("jp", "gw", NAMED)):
            words = ("-m", "lab.peers", "stream", address, "200", str(COUNT), str(RATE))
            streams[name] = wired.namespaces[client].start_python(*words)
            started.append(streams[name])
        until(lambda: peer(wired, "jp")["rx_bytes"] > 10_000, "it answers at its first address")
        named.stop()
        exit_.ip(f"addr add {SECOND_ADDRESS}/24 dev outer")
        exit_.ip(f"addr del {FIRST_ADDRESS}/24 dev outer")
        exit_.ip(f"addr replace {SECOND_ADDRESS}/24 dev outer")
        wired.name_hosts({"jp.example": SECOND_ADDRESS})
        named.start()
        initiations = seen_while(streams["hk"], sniffer)
        documents = {name: streams[name].document() for name in ("hk", "sg")}
        moved = f"{SECOND_ADDRESS}:51823"
        until(lambda: peer(wired, "jp")["endpoint"] == moved, "the name is looked up again", GIVES_UP_S)
        until(lambda: wired.client("gw", "ping", NAMED)["ok"], "it answers at its second address")
        documents["jp"] = streams["jp"].document()
        yield Record(documents, initiations, sniffer.missed(), peer(wired, "jp")["endpoint"])
    finally:
        for process in started:
            process.stop()
        sniffer.close()
        for end in (called, caller, named):
            end.stop()
        exit_.ip(f"addr flush dev outer to {SECOND_ADDRESS}/32")


def seen_while(running: LabProcess, sniffer: Sniffer) -> Counter[tuple[str, str]]:
    """The initiations on the cable until a process has ended."""
    found: Counter[tuple[str, str]] = Counter()
    ended = os.pidfd_open(running.pid)
    deadline = time.monotonic() + 2 * STREAM_S
    try:
        while not select.select([ended], [], [], 0.5)[0]:
            assert time.monotonic() < deadline, "the stream does not end"
            found.update(initiations_in(sniffer.frames()))
    finally:
        os.close(ended)
    found.update(initiations_in(sniffer.frames()))
    return found


def initiations_in(frames: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    for frame in frames:
        seen = datagram_in(frame)
        if seen is not None and len(seen.payload) == INITIATION_BYTES and seen.payload[0] == MessageKind.INITIATION:
            yield seen.source, seen.destination


def assert_nothing_was_lost(told: dict[str, Any]) -> None:
    assert told["answered"] == COUNT, told
    assert told["repeated"] == told["late"] == told["spoiled"] == 0, told


def test_w7_as_initiator_we_make_new_keys_after_120_s_and_no_packet_is_lost(two_minutes: Record) -> None:
    assert_nothing_was_lost(two_minutes.streams["hk"])
    us, them = f"{OUTER_GATEWAY}:{OUR_PORT}", f"{OUTER_EXIT}:51821"
    assert two_minutes.missed_frames == 0
    assert two_minutes.initiations[us, them] == 2
    assert two_minutes.initiations[them, us] == 0


def test_w7_as_responder_we_leave_new_keys_to_the_caller_and_no_packet_is_lost(two_minutes: Record) -> None:
    assert_nothing_was_lost(two_minutes.streams["sg"])
    us, them = f"{OUTER_GATEWAY}:{OUR_PORT}", f"{OUTER_EXIT}:51822"
    assert two_minutes.initiations[us, them] == 0
    assert two_minutes.initiations[them, us] == 2


def test_a_name_that_gets_another_address_is_looked_up_again_once_the_old_one_is_silent(two_minutes: Record) -> None:
    assert two_minutes.moved_to == f"{SECOND_ADDRESS}:51823"
    told = two_minutes.streams["jp"]
    assert told["answered"] > 0
    assert told["spoiled"] == 0
