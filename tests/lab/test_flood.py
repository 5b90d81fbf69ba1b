"""100,000 initiations of strangers, from a thousand sources, while an established session carries TCP."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from lab.namespace import Namespace
from lab.other_end import FAR_PORT, OUR_PORT
from lab.outside import OUTER_EXIT, OUTER_GATEWAY
from lab.process import LabProcess
from lab.sniffer import Sniffer, datagram_in
from lab.topology import TUNNELLED, Lab
from lab.wireguard import FarEnd
from tests.lab.far_end import peer, run, until
from tunnel.messages import COOKIE_REPLY_BYTES, INITIATION_BYTES, MessageKind
from tunnel.primitives import MAC_BYTES

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

SOURCES = "203.0.113.0/24"
TURNS, A_TURN, RATE = 4, 25_000, 10_000
TRANSFER_BYTES, TRANSFER_S = 10_000_000, 60.0
MEMORY_KIB = 16 * 1024
REFUSED = ("cookie_sent", "mac1", "handshake", "unknown_peer", "source_limit", "too_soon", "old_timestamp")


@pytest.fixture
def crowd(wired: Lab) -> Iterator[Namespace]:
    """The flood's sources: addresses of the exit's own, to which the gateway's machine has a route."""
    exit_, gw = wired.namespaces["exit"], wired.namespaces["gw"]
    exit_.ip(f"route add local {SOURCES} dev lo")
    gw.ip(f"route add {SOURCES} via {OUTER_EXIT}")
    yield exit_
    exit_.ip(f"route del local {SOURCES} dev lo")
    gw.ip(f"route del {SOURCES}")


def resident_kib(process: LabProcess) -> int:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("the kernel tells no size")


def overflowed(lab: Lab) -> int:
    """Datagrams that no socket of the gateway's machine had room for."""
    names, values = (
        line.split() for line in lab.namespaces["gw"].run("cat", "/proc/net/snmp").splitlines() if line[:4] == "Udp:"
    )
    return int(dict(zip(names, values, strict=True))["RcvbufErrors"])


def refusals(lab: Lab) -> dict[str, int]:
    drops = lab.ask("stats")["drops"]
    return {reason: drops[f"tunnel.{reason}"] for reason in REFUSED}


def carried(lab: Lab) -> float:
    """Mbit/s of a transfer, there and back, that came through whole."""
    told = lab.client("lan3", "transfer", TUNNELLED, str(TRANSFER_BYTES), str(TRANSFER_BYTES), timeout_s=TRANSFER_S)
    assert told["ok"], told
    return TRANSFER_BYTES * 16 / 1e6 / float(told["up_s"] + told["down_s"])


@contextmanager
def flooding(crowd: Namespace, far: FarEnd) -> Iterator[LabProcess]:
    words = (
        "trials.floods.initiations",
        OUTER_GATEWAY,
        str(OUR_PORT),
        far.ours.public,
        SOURCES,
        str(A_TURN),
        str(RATE),
    )
    flood = crowd.start_python("-m", *words, listens=True)
    try:
        assert flood.line() == "begun"
        yield flood
    finally:
        flood.stop()


def test_a_session_lives_through_100_000_initiations(
    wired: Lab, far: FarEnd, crowd: Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    """W24, W27: nobody gets more than a cookie reply, which is smaller than what it answers; nothing grows."""
    far.start()
    gateway = run(wired, far.configuration())
    carried(wired)
    handshake, before_kib = far.shown("latest-handshakes"), resident_kib(gateway)
    before, lost_before = refusals(wired), overflowed(wired)
    quiet, flooded, floods = [], [], []
    for _ in range(TURNS):
        quiet.append(carried(wired))
        with flooding(crowd, far) as flood:
            flooded.append(carried(wired))
            assert flood.line() == "enough"
            flood.say("stop")
            floods.append(flood.document())
    after_kib = resident_kib(gateway)
    sent = sum(flood["sent"] for flood in floods)
    assert sent - sum(flood["refused"] for flood in floods) >= TURNS * A_TURN
    after = refusals(wired)
    counted = {reason: after[reason] - before[reason] for reason in REFUSED}
    lost = overflowed(wired) - lost_before
    assert sum(counted.values()) <= sent <= sum(counted.values()) + lost, (counted, lost)
    assert after_kib - before_kib < MEMORY_KIB
    answers = {kind: sum(flood["answers"].get(kind, 0) for flood in floods) for kind in "1234"}
    assert answers["1"] == answers["2"] == answers["4"] == 0, "a cookie reply is all that a stranger gets"
    assert answers["3"] <= counted["cookie_sent"]
    assert max(flood["longest_answer"] for flood in floods) == COOKIE_REPLY_BYTES < INITIATION_BYTES
    assert far.shown("latest-handshakes") == handshake, "the session lived on"
    assert peer(wired)["state"] == "up"
    with capsys.disabled():
        factor = statistics.median(flooded) / statistics.median(quiet)
        print(
            f"\n{sent} initiations at {statistics.median(f['rate'] for f in floods):.0f}/s: the session carries"
            f" {statistics.median(flooded):.0f} Mbit/s, without them {statistics.median(quiet):.0f}: {factor:.2f};"
            f" {counted}, {lost} lost by the kernel, {after_kib - before_kib} KiB more"
        )


def test_a_peer_that_calls_in_a_flood_gets_through_with_a_cookie(wired: Lab, far: FarEnd, crowd: Namespace) -> None:
    """W24, W25: its first initiation is answered with a cookie, the next one carries it and gets a session."""
    ours, theirs = f"{OUTER_GATEWAY}:{OUR_PORT}", f"{OUTER_EXIT}:{FAR_PORT}"
    calls: list[bytes] = []
    answers: list[bytes] = []

    def has_got_through() -> bool:
        for seen in filter(None, map(datagram_in, sniffer.frames())):  # all of the flood passes there too
            if (seen.source, seen.destination) == (theirs, ours) and seen.payload[0] == MessageKind.INITIATION:
                calls.append(seen.payload)
            elif (seen.source, seen.destination) == (ours, theirs):
                answers.append(seen.payload)
        return peer(wired)["latest_handshake_s"] is not None

    run(wired, far.configuration(endpoint=None))
    with closing(Sniffer(wired.namespaces["exit"], "outer")) as sniffer, flooding(crowd, far):
        until(lambda: refusals(wired)["cookie_sent"] > 0, "there is load")
        far.call()
        until(has_got_through, "the peer has got through")
        has_got_through()
    assert calls[0][-MAC_BYTES:] == bytes(MAC_BYTES)
    assert calls[-1][-MAC_BYTES:] != bytes(MAC_BYTES)
    kinds = [answer[0] for answer in answers[: len(calls)]]
    assert kinds == [MessageKind.COOKIE_REPLY] * (len(calls) - 1) + [MessageKind.RESPONSE]
    assert wired.client("lan3", "ping", TUNNELLED)["ok"]
