"""A route that is turned every few milliseconds under full load: no datagram leaves by a decision of before."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.topology import OFFLOAD_LIST, TAP1, VPN_ALIAS, Lab
from trials.traffic.stamped import heard

pytestmark = pytest.mark.lab

REMOTE = "203.0.113.77"
SIDES = {"isp": TAP1, "exit": VPN_ALIAS}
FLIPS = 200
PORTS = {"isp": "tap1", "exit": "vpn"}
ENOUGH = 100
WAIT_S = 20.0


@pytest.fixture
def both_sides(lab: Lab) -> Iterator[dict[str, Path]]:
    """The same address behind both egresses, with somebody who listens."""
    files: dict[str, Path] = {}
    listeners = []
    for name in SIDES:
        lab.namespaces[name].ip(f"addr add {REMOTE}/32 dev lo")
        files[name] = lab.folder / f"heard-{name}"
        listener = lab.namespaces[name].start_python("-m", "trials.traffic.stamped", "hear", REMOTE, str(files[name]))
        assert listener.line() == "ready"
        listeners.append(listener)
    yield files
    for listener in listeners:
        listener.stop()


def _until_sent(lab: Lab, port: str) -> None:
    """Some more packets have left by a port: a few milliseconds under load."""
    deadline = time.monotonic() + WAIT_S
    start = lab.ask("stats")["ports"][port]["tx_packets"]
    while lab.ask("stats")["ports"][port]["tx_packets"] < start + ENOUGH:
        assert time.monotonic() < deadline, f"nothing leaves by {port}"


def test_after_a_reload_is_answered_no_datagram_takes_the_way_of_before(lab: Lab, both_sides: dict[str, Path]) -> None:
    """One that is sent after the answer and heard before the next question has seen one route alone, wherever it
    waited meanwhile."""
    sender = lab.namespaces["lan3"].start_python("-m", "trials.traffic.stamped", "send", REMOTE, listens=True)
    turns: list[tuple[int, int, str]] = []  # answered, asked again, which side
    for turn in range(FLIPS):
        side = ("isp", "exit")[turn % 2]
        listed = f"{REMOTE}/32\n" if side == "isp" else ""
        (lab.folder / "offload.txt").write_text(OFFLOAD_LIST + listed)
        lab.ask("reload")
        answered_ns = time.monotonic_ns()
        _until_sent(lab, PORTS[side])
        turns.append((answered_ns, time.monotonic_ns(), side))
    sender.say("")
    assert sender.document()["sent"] > FLIPS
    sender.stop()
    lab.configure()
    lab.ask("reload")
    arrived = {name: heard(path) for name, path in both_sides.items()}
    answers = [answered_ns for answered_ns, _, _ in turns]
    judged, strays = Counter[str](), Counter[str]()
    for name, source in SIDES.items():
        assert {one.source for one in arrived[name]} == {source}, f"at {name}"
        for one in arrived[name]:
            turn = bisect_right(answers, one.sent_ns) - 1
            if turn >= 0 and one.heard_ns < turns[turn][1]:
                judged[name] += 1
                strays[name] += turns[turn][2] != name
    assert not +strays, f"of {judged}"
    assert min(judged.values()) > FLIPS, "too few for a judgement"
    assert lab.ask("stats")["fast_path"]["punts"]["outdated"] > FLIPS / 4, "nothing was repeated in between"
