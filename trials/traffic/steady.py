"""An ordinary host's traffic, watched while others flood: `python -m trials.traffic.steady WORD ...`.

    serve ADDRESS            echoes UDP and counts TCP on PORT of an address of this host; says `ready`
    watch HOST RATE SECONDS  one flow of RATE datagrams a second, and beside it a new flow every `FRESH_S`: what came
                             back, and how long each way took
    pour HOST SECONDS        one TCP connection as fast as it goes: what the far end got, bytes a second

Every datagram carries the time when it was sent and gets the time of the far end on its way back: all clocks of one
machine agree. Clients print one JSON document; delays are in microseconds. A datagram that takes longer than `LATE_S`
is lost.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import threading
import time

PORT = 7799
FRESH_S = 0.02
LATE_S = 1.0
_RECORD = struct.Struct("!QQQ")  # number, sent, at the far end; nanoseconds
_CHUNK_BYTES = 1 << 18
_SECONDS = struct.Struct("!d")
_COUNT = struct.Struct("!Qd")
_WAIT_S = 10.0


def serve(address: str) -> None:
    """See above; until killed."""
    listener = socket.create_server((address, PORT))
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    echo.bind((address, PORT))
    print("ready", flush=True)
    while True:
        for ready in select.select([listener, echo], [], [])[0]:
            if ready is listener:
                threading.Thread(target=_sink, args=(listener.accept()[0],), daemon=True).start()
                continue
            datagram, source = echo.recvfrom(64)
            if len(datagram) == _RECORD.size:  # what strangers send is not answered
                number, sent_ns, _ = _RECORD.unpack(datagram)
                echo.sendto(_RECORD.pack(number, sent_ns, time.monotonic_ns()), source)


def _sink(connection: socket.socket) -> None:
    with connection:
        connection.settimeout(_WAIT_S)
        try:
            seconds = _SECONDS.unpack(connection.recv(_SECONDS.size, socket.MSG_WAITALL))[0]
            began = time.monotonic()
            count = 0
            while (passed_s := time.monotonic() - began) < seconds and (part := connection.recv(_CHUNK_BYTES)):
                count += len(part)
            connection.sendall(_COUNT.pack(count, passed_s))
            while connection.recv(_CHUNK_BYTES):  # a connection closed on unread bytes is reset, and the answer is lost
                pass
        except (OSError, struct.error):  # the client has left, or was nobody
            return


def pour(host: str, seconds: float) -> dict[str, object]:
    """See above. A connection that cannot be made carries nothing."""
    block = bytes(_CHUNK_BYTES)
    try:
        connection = socket.create_connection((host, PORT), timeout=_WAIT_S)
    except OSError:
        return {"ok": False, "bytes_a_second": 0.0}
    with connection:
        connection.sendall(_SECONDS.pack(seconds))
        connection.setblocking(False)
        deadline = time.monotonic() + seconds + _WAIT_S
        while time.monotonic() < deadline:
            readable, writable, _ = select.select([connection], [connection], [], 1.0)
            if readable:
                try:
                    count, took_s = _COUNT.unpack(connection.recv(_COUNT.size))
                except (OSError, struct.error):
                    break
                return {"ok": count > 0, "bytes_a_second": count / took_s}
            if writable:
                try:
                    connection.send(block)
                except OSError:  # the far end gave it up
                    break
    return {"ok": False, "bytes_a_second": 0.0}


class _SteadyFlow:
    """One socket to the far end, and what came back on it."""

    def __init__(self, host: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.socket.connect((host, PORT))
        self.sent = 0
        self.there: list[int] = []
        self.back: list[int] = []

    def send(self) -> None:
        """One more datagram; what the kernel refuses counts as sent and is lost."""
        self.sent += 1
        try:
            self.socket.send(_RECORD.pack(self.sent, time.monotonic_ns(), 0))
        except OSError:  # an ICMP error about an earlier one, or a full queue
            return

    def hear(self) -> None:
        """Take in what is there."""
        while True:
            try:
                datagram = self.socket.recv(64)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error
                continue
            now_ns = time.monotonic_ns()
            _, sent_ns, far_ns = _RECORD.unpack(datagram)
            if now_ns - sent_ns < LATE_S * 1e9:
                self.there.append((far_ns - sent_ns) // 1000)
                self.back.append((now_ns - far_ns) // 1000)


def watch(host: str, rate: float, seconds: float) -> dict[str, object]:
    """See above. `fresh_us`: there and back, of the first datagram of each new flow that was answered."""
    flow = _SteadyFlow(host)
    fresh: list[_SteadyFlow] = []
    poll = select.poll()
    poll.register(flow.socket, select.POLLIN)
    by_descriptor = {flow.socket.fileno(): flow}
    began = time.monotonic()
    while (passed_s := time.monotonic() - began) < seconds + LATE_S:
        if passed_s < seconds:
            for _ in range(int(passed_s * rate) - flow.sent):
                flow.send()
            if passed_s >= FRESH_S * len(fresh):
                new = _SteadyFlow(host)
                new.send()
                fresh.append(new)
                by_descriptor[new.socket.fileno()] = new
                poll.register(new.socket, select.POLLIN)
        elif len(flow.there) == flow.sent and all(one.there for one in fresh):
            break
        for descriptor, _ in poll.poll(1):
            by_descriptor[descriptor].hear()
    document: dict[str, object] = {
        "ok": bool(flow.there),
        "sent": flow.sent,
        "lost": flow.sent - len(flow.there),
        "there_us": flow.there,
        "back_us": flow.back,
        "fresh": len(fresh),
        "fresh_lost": sum(not one.there for one in fresh),
        "fresh_us": [one.there[0] + one.back[0] for one in fresh if one.there],
    }
    for one in (flow, *fresh):
        one.socket.close()
    return document


def main(words: list[str]) -> int:
    """0 where anything came through, 1 where nothing did."""
    if words[0] == "serve":
        serve(words[1])
    document = (
        watch(words[1], float(words[2]), float(words[3])) if words[0] == "watch" else pour(words[1], float(words[2]))
    )
    print(json.dumps(document))
    return 0 if document["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
