"""`/metrics`: OpenMetrics text over a very small HTTP server that never holds up the loop."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from bridge.config.into_tunnel import Peers
from bridge.control.answers.peers import STATES, described
from bridge.control.answers.question import Subject
from bridge.control.metrics import CLIENT_S, LONGEST_REQUEST_BYTES, GatewayCollector, MetricsServer
from bridge.loop.loop import Loop
from tests.bridge.loop.test_loop import Cable, Clock
from tests.bridge.vpn.test_vpn_port import HK, World, udp
from wire.units import SECOND_NS

DEADLINE_S = 10.0


class Drops(Collector):
    """One counter."""

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily("tapbridge_drops", "Packets that went no further.", labels=["reason"])
        family.add_metric(["ip.ttl"], 3)
        yield family


def registry_of(collector: Collector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


class Served:
    def __init__(self) -> None:
        self.clock = Clock()
        self.loop = Loop(Cable(), clock=self.clock)
        self.server = MetricsServer(self.loop, "127.0.0.1:0", Drops())

    def fetch(self, request: bytes) -> bytes:
        """Everything that comes back until the server hangs up."""
        with socket.create_connection(self.server.address) as connection:
            connection.sendall(request)
            connection.setblocking(False)
            data, deadline = b"", time.monotonic() + DEADLINE_S
            while time.monotonic() < deadline:
                self.loop.turn(0.01)
                try:
                    part = connection.recv(1 << 16)
                except BlockingIOError:
                    continue
                except ConnectionResetError:
                    return data
                if not part:
                    return data
                data += part
        raise AssertionError("the server did not hang up")


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.server.close()
    served.loop.close()


def test_the_text_is_openmetrics(served: Served) -> None:
    head, _, body = served.fetch(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"application/openmetrics-text" in head
    parse: Callable[[str], Iterable[Metric]] = text_string_to_metric_families
    [family] = parse(body.decode())
    assert [(sample.labels, sample.value) for sample in family.samples] == [({"reason": "ip.ttl"}, 3.0)]


@pytest.mark.parametrize(
    ("request_line", "status"),
    [(b"GET / HTTP/1.1", b"404"), (b"POST /metrics HTTP/1.1", b"405"), (b"nonsense", b"405"), (b"\xff", b"405")],
)
def test_anything_else_is_refused(served: Served, request_line: bytes, status: bytes) -> None:
    assert served.fetch(request_line + b"\r\n\r\n").split(b" ")[1] == status


def test_each_peer_has_its_handshake_age_bytes_and_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no `route` folder lies beside the configuration
    world = World(Peers((HK,), {}), set())
    world.send(udp())
    world.meet()
    world.now += 2 * SECOND_NS
    registry = registry_of(GatewayCollector(Subject(world.gateway, world.vpn, config=world.config), lambda: world.now))
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]  # the library leaves it unannotated
    hk, sg = described(world.config, world.vpn.status(), world.now)["peers"]
    world.close()
    lines = text.decode().splitlines()
    assert [line for line in lines if line.startswith("tapbridge_peer_handshake")] == [
        'tapbridge_peer_handshake_age_seconds{peer="hk"} 2.0'
    ], "sg has never shaken hands"
    for peer in (hk, sg):
        for key in ("rx_bytes", "tx_bytes"):
            assert f'tapbridge_peer_{key}_total{{peer="{peer["name"]}"}} {float(peer[key])}' in lines
    assert hk["rx_bytes"] > 0
    assert hk["tx_bytes"] > 0
    assert {line for line in lines if line.startswith("tapbridge_peer_state") and line.endswith(" 1.0")} == {
        'tapbridge_peer_state{peer="hk",tapbridge_peer_state="up"} 1.0',
        'tapbridge_peer_state{peer="sg",tapbridge_peer_state="not served"} 1.0',
    }
    assert len([line for line in lines if line.startswith("tapbridge_peer_state")]) == 2 * len(STATES)


def test_an_endless_request_is_hung_up_on(served: Served) -> None:
    assert served.fetch(b"GET /metrics HTTP/1.1\r\n" + b"x" * LONGEST_REQUEST_BYTES) == b""


def test_a_client_that_says_nothing_is_hung_up_on(served: Served) -> None:
    with socket.create_connection(served.server.address) as silent:
        silent.settimeout(DEADLINE_S)
        served.loop.turn(0.1)
        served.clock.now += round((CLIENT_S + 1) * SECOND_NS)
        served.loop.turn(0)
        assert silent.recv(1) == b""
