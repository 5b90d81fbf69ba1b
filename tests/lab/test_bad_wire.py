"""The tunnel against WireGuard over a wire that loses, doubles and reorders.

TCP gets through, and every missing datagram is one that the wire lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from lab.flows import HOST_TO_VPN, LAN_TO_VPN
from lab.topology import TUNNELLED, Lab
from lab.wireguard import FarEnd
from tests.lab.far_end import peer, run, until
from trials.cables.carrier import BadWire, join_by_wire

pytestmark = pytest.mark.lab

LOSS = {"loss": 0.01, "reorder": 0.02, "displacement": 16}
SILENT = ("tunnel.authentication", "tunnel.malformed", "tunnel.unknown_index", "tunnel.expired", "tunnel.mac1")


@pytest.fixture(scope="module")
def wire(wired: Lab) -> Iterator[BadWire]:
    yield join_by_wire(wired, seed=2026)
    wired.part_outside()


@pytest.mark.parametrize("who", ["we call", "they call"])
def test_tcp_gets_through_loss_and_reordering_both_ways(wired: Lab, wire: BadWire, far: FarEnd, who: str) -> None:
    wire.set()
    if who == "we call":
        far.start()
        run(wired, far.configuration())
    else:
        run(wired, far.configuration(endpoint=None))
        far.call()
    until(lambda: peer(wired)["state"] == "up" or wired.client("lan3", "ping", TUNNELLED)["ok"], "there is a session")
    wire.set(**LOSS, duplicate=0.01)
    for flow in (LAN_TO_VPN, HOST_TO_VPN):
        answer = wired.client(flow.client, "transfer", flow.remote, "5000000", "5000000")
        assert answer["ok"], (flow.name, answer)
    counts = wire.set()
    for direction in ("there", "back"):
        assert min(counts[direction][what] for what in ("lost", "displaced", "duplicated")) > 10
    drops = wired.ask("stats")["drops"]
    assert {reason: drops[reason] for reason in SILENT if drops[reason]} == {}
    assert peer(wired)["state"] == "up"


def test_every_datagram_that_is_missing_was_lost_by_the_wire(wired: Lab, wire: BadWire, far: FarEnd) -> None:
    wire.set()
    far.start()
    run(wired, far.configuration())
    assert wired.client("lan3", "ping", TUNNELLED)["ok"]
    replays = wired.ask("stats")["drops"]["tunnel.replay"]
    before = wire.set(**LOSS, duplicate=0.01)
    told = wired.client("lan3", "stream", TUNNELLED, "400", "8000", "2000")
    after = wire.set()
    there, back = (Counter(after[way]) - Counter(before[way]) for way in ("there", "back"))
    assert told["answered"] == 8000 - there["lost"] - back["lost"]
    assert there["lost"] > 20
    assert back["lost"] > 20
    assert told["late"] > 20, "what the wire reordered within the window arrives, late"
    assert told["repeated"] == told["spoiled"] == 0, "what the wire doubled arrives once"
    assert wired.ask("stats")["drops"]["tunnel.replay"] - replays == back["duplicated"] > 20


def test_a_first_initiation_that_is_lost_is_sent_again_and_what_waited_arrives(
    wired: Lab, wire: BadWire, far: FarEnd
) -> None:
    far.start()
    wire.set(blocked=["there"])
    run(wired, far.configuration())
    running = wired.namespaces["lan3"].start_python("-m", "lab.peers", "stream", TUNNELLED, "100", "100", "1000")
    try:
        until(lambda: wire.counts()["there"].get("blocked", 0) > 0, "an initiation got lost")
        wire.set()
        until(lambda: peer(wired)["state"] == "up", "the second one came through")
    finally:
        running.stop()
    until(lambda: int(far.shown("transfer").split("\t")[0]) > 100 * 100, "all that waited has arrived")
