"""`/metrics` for Prometheus: the gateway's counters as OpenMetrics text, over a very small HTTP server in the loop.

Every counter carries its port, peer or reason as a label. Reasons that never happened are shown as zero, so that a rate
can be taken from the first one on. Peers are those of `bridgectl peers`, with the same states. prometheus_client writes
the text.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, StateSetMetricFamily
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from bridge.control.answers import peers
from bridge.control.answers.question import Subject
from bridge.loop.listening import Listener
from bridge.loop.loop import Loop, Timer
from bridge.walk.balance import accounts
from wire.units import SECOND_NS

MOST_CLIENTS = 16
LONGEST_REQUEST_BYTES = 8 * 1024
CLIENT_S = 10.0

_PORT_COUNTERS = (
    ("rx_packets", "Frames that came in."),
    ("rx_bytes", "Bytes that came in."),
    ("tx_packets", "Frames that went out."),
    ("tx_bytes", "Bytes that went out."),
)


class GatewayCollector(Collector):
    """Reads the counters of `subject` when Prometheus asks. `clock`: monotonic ns, the gateway's."""

    def __init__(self, subject: Subject, clock: Callable[[], int]) -> None:
        self._subject = subject
        self._gateway = subject.gateway
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        """The families, in the order of `bridgectl stats`, then those of `bridgectl peers`."""
        uptime_s = (self._clock() - self._gateway.started_ns) / SECOND_NS
        yield GaugeMetricFamily("tapbridge_uptime_seconds", "Since the start.", value=uptime_s, unit="seconds")
        yield from self._ports()
        yield from self._fates()
        yield from self._tables()
        yield from self._peers()

    def _ports(self) -> Iterable[Metric]:
        for name, says in _PORT_COUNTERS:
            family = CounterMetricFamily(f"tapbridge_{name}", says, labels=["port"])
            for port, counted in self._gateway.counters.ports.items():
                family.add_metric([port], getattr(counted, name))
            yield family

    def _fates(self) -> Iterable[Metric]:
        fates = CounterMetricFamily("tapbridge_fates", "Fates of frames that came in.", labels=["port", "fate"])
        held = GaugeMetricFamily("tapbridge_held", "Frames that came in and wait.", labels=["port"])
        for port, account in accounts(self._gateway).items():
            for fate, number in account.fates.items():
                if fate == "held":
                    held.add_metric([port], number)
                else:
                    fates.add_metric([port, fate], number)
        yield fates
        yield held
        drops = CounterMetricFamily("tapbridge_drops", "Packets that went no further.", labels=["reason"])
        for reason, number in self._gateway.counters.drops.items():
            drops.add_metric([reason.value], number)
        yield drops

    def _tables(self) -> Iterable[Metric]:
        gateway = self._gateway
        yield GaugeMetricFamily("tapbridge_links", "NAT links that live.", value=len(gateway.aliases))
        yield GaugeMetricFamily("tapbridge_flows", "Flows in the flow table.", value=len(gateway.fast))
        punts = CounterMetricFamily("tapbridge_punts", "Frames that the fast path left to the walk.", labels=["reason"])
        for punt, number in gateway.fast.punts.items():
            punts.add_metric([punt.name.lower()], number)
        yield punts
        neighbours = GaugeMetricFamily("tapbridge_arp_entries", "ARP slots in use.", labels=["port"])
        for port, table in gateway.arp.items():
            neighbours.add_metric([port], table.used)
        yield neighbours

    def _peers(self) -> Iterable[Metric]:
        """A peer that has never shaken hands has no handshake age."""
        document = peers.show(self._subject, {}, self._clock())
        age = GaugeMetricFamily(
            "tapbridge_peer_handshake_age_seconds", "Since the latest handshake.", labels=["peer"], unit="seconds"
        )
        received = CounterMetricFamily("tapbridge_peer_rx_bytes", "Bytes that came from the peer.", labels=["peer"])
        sent = CounterMetricFamily("tapbridge_peer_tx_bytes", "Bytes that went to the peer.", labels=["peer"])
        states = StateSetMetricFamily("tapbridge_peer_state", "Exactly one state is 1.", labels=["peer"])
        for peer in document["peers"]:
            labels = [peer["name"]]
            if peer["latest_handshake_s"] is not None:
                age.add_metric(labels, peer["latest_handshake_s"])
            received.add_metric(labels, peer["rx_bytes"])
            sent.add_metric(labels, peer["tx_bytes"])
            states.add_metric(labels, {state: state == peer["state"] for state in peers.STATES})
        yield from (age, received, sent, states)


class MetricsServer:
    """Answers `GET /metrics` on `endpoint` (`host:port`), one request a connection. Raises `OSError` where it cannot
    listen."""

    def __init__(self, loop: Loop, endpoint: str, collector: Collector) -> None:
        host, _, port = endpoint.rpartition(":")
        self._loop = loop
        self._registry = CollectorRegistry()
        self._registry.register(collector)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=MOST_CLIENTS)
        self._socket.setblocking(False)
        self._clients: set[_Client] = set()
        self._listener = Listener(loop, self._socket, "the metrics", self._accepted)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def _accepted(self, connection: socket.socket) -> None:
        if len(self._clients) >= MOST_CLIENTS:
            connection.close()
            return
        self._clients.add(_Client(self._loop, connection, self._answer, self._clients.discard))

    def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b" ")
        path = rest.split(b" ", 1)[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _response(b"405 Method Not Allowed", "text/plain", b"GET is what there is\n")
        if path != b"/metrics":
            return _response(b"404 Not Found", "text/plain", b"the metrics are at /metrics\n")
        body = generate_latest(self._registry)  # type: ignore[no-untyped-call]  # the library leaves it unannotated
        return _response(b"200 OK", CONTENT_TYPE_LATEST, body, is_head=method == b"HEAD")

    def close(self) -> None:
        """Stop listening and hang up."""
        for client in list(self._clients):
            client.close()
        self._listener.close()


def _response(status: bytes, kind: str, body: bytes, *, is_head: bool = False) -> bytes:
    head = b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (status, kind.encode(), len(body)) + (b"" if is_head else body)


class _Client:
    """One connection: a request comes in, an answer goes out, within `CLIENT_S`."""

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        answer: Callable[[bytes], bytes],
        on_close: Callable[[_Client], None],
    ) -> None:
        self._loop = loop
        self._socket = connection
        self._answer = answer
        self._on_close = on_close
        self._request = bytearray()
        self._unsent = memoryview(b"")
        self._limit: Timer = loop.call_later(CLIENT_S, self.close)
        loop.add(connection.fileno(), self._ready)

    def _ready(self, events: int) -> None:
        try:
            if events & select.EPOLLIN and not self._unsent:
                self._receive()
            elif self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
                if not self._unsent:
                    self.close()
            else:
                self.close()
        except BlockingIOError:
            return
        except OSError:
            self.close()

    def _receive(self) -> None:
        data = self._socket.recv(LONGEST_REQUEST_BYTES)
        self._request += data
        if b"\r\n\r\n" in self._request:
            self._unsent = memoryview(self._answer(bytes(self._request)))
            self._loop.modify(self._socket.fileno(), select.EPOLLOUT)
        elif not data or len(self._request) >= LONGEST_REQUEST_BYTES:
            self.close()

    def close(self) -> None:
        """Hang up; a second call does nothing."""
        if self._socket.fileno() < 0:
            return
        self._limit.cancel()
        self._loop.remove(self._socket.fileno())
        self._socket.close()
        self._on_close(self)
