"""Both ends of the benchmark's load, each run inside a namespace of the lab: `python -m trials.bench.load WORD ...`.

    serve ADDRESS                               TCP exchanges and streams at an address of this host; prints `ready`
    sink ADDRESS                                counts UDP datagrams; each line on standard input is answered with the
                                                count so far
    datagrams HOST                              sends UDP datagrams; each line on standard input is one order, a JSON
                                                object {rate, seconds, flows, first_port, source} (rate 0: as fast as
                                                it goes; flows 0: one socket), answered with {sent, seconds, refused}
    connections HOST SECONDS PROCESSES          TCP connections, each with one small exchange, one after the other in
                                                that many processes
    stream HOST up|down STREAMS SECONDS         bulk TCP, for machines without iperf3
    arrivals ADDRESS                            numbered datagrams, with the time of each: see `arrivals`
    numbered HOST RATE                          sends them until a line comes on standard input

Nothing here may be what bounds the gateway: datagrams leave and arrive 64 to a system call (sendmmsg, recvmmsg, which
Python's socket module lacks), and what takes turns in one process does so without an event loop.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from wire import ipv4
from wire.checksum import checksum, pseudo_header_sum
from wire.units import address_int

EXCHANGE_PORT, STREAM_PORT, DATAGRAM_PORT, NUMBERED_PORT = 7781, 7782, 7783, 7784
PAYLOAD_BYTES = 18
"""Of a datagram: with its headers and the frame check sequence a frame of 64 bytes."""
BURST = 64
_SERVERS = 4
_BUFFER_BYTES = 16 << 20
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
_SO_RCVTIMEO = 20
_MSG_WAITFORONE = 0x10000
_PR_SET_PDEATHSIG = 1
_PIECE = bytes(1 << 18)
_GRACE_S = 3.0
_PACE_S = 100e-6  # a sender that is ahead of its rate sleeps at least that long: shorter sleeps are all overhead
_NUMBER = struct.Struct("!Q")
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Part(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Head(ctypes.Structure):  # struct msghdr
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("parts", ctypes.c_void_p),
        ("parts_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _MessageHead(ctypes.Structure):  # struct mmsghdr
    _fields_ = (("head", _Head), ("length", ctypes.c_uint32))


class Batch:
    """Messages that lie ready for sendmmsg or recvmmsg, one for each of `payloads`."""

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self.count = len(payloads)
        self._memory = ctypes.create_string_buffer(b"".join(payloads), sum(map(len, payloads)))
        self._parts = (_Part * self.count)()
        self._messages = (_MessageHead * self.count)()
        at = ctypes.addressof(self._memory)
        part = ctypes.addressof(self._parts)
        for number, payload in enumerate(payloads):
            self._parts[number].base, self._parts[number].length = at, len(payload)
            self._messages[number].head.parts, self._messages[number].head.parts_count = part, 1
            at += len(payload)
            part += ctypes.sizeof(_Part)

    def send(self, descriptor: int, first: int, count: int) -> int:
        """Send that many from `first` on; how many left (0: the socket refused)."""
        count = min(count, self.count - first)
        where = ctypes.byref(self._messages, first * ctypes.sizeof(_MessageHead))
        return max(int(_LIBC.sendmmsg(descriptor, where, count, 0)), 0)

    def receive(self, descriptor: int) -> int:
        """Take what is there, waiting for the first; 0 after the socket's time limit."""
        return max(int(_LIBC.recvmmsg(descriptor, self._messages, self.count, _MSG_WAITFORONE, None)), 0)


def _enlarge(opened: socket.socket) -> None:
    for forced, plain in ((_SO_SNDBUFFORCE, socket.SO_SNDBUF), (_SO_RCVBUFFORCE, socket.SO_RCVBUF)):
        try:
            opened.setsockopt(socket.SOL_SOCKET, forced, _BUFFER_BYTES)
        except PermissionError:  # in a user namespace
            opened.setsockopt(socket.SOL_SOCKET, plain, _BUFFER_BYTES)


def _fork(body: Callable[[], None]) -> int:
    """A child that runs `body` and dies with us; its process id."""
    parent = os.getpid()
    if child := os.fork():
        return child
    try:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() == parent:  # it was not ended before we asked to be told
            body()
    finally:
        os._exit(0)


def _answer(document: object) -> None:
    print(json.dumps(document), flush=True)


# --- UDP -----------------------------------------------------------------------------------------------------------


def sink(address: str) -> None:
    """Count what arrives until standard input ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        _enlarge(listening)
        listening.setsockopt(socket.SOL_SOCKET, _SO_RCVTIMEO, struct.pack("ll", 0, 5_000))
        listening.bind((address, DATAGRAM_PORT))
        batch = Batch([bytes(2048)] * BURST)
        received = 0
        print("ready", flush=True)
        while True:
            if count := batch.receive(listening.fileno()):
                received += count
            elif select.select([sys.stdin], [], [], 0)[0]:
                if not sys.stdin.readline():
                    return
                _answer({"received": received})


def datagrams(host: str) -> None:
    """Obey orders until standard input ends."""
    prepared: dict[tuple[int, int, str], Batch] = {}
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        flows, source = int(order.get("flows", 0)), str(order.get("source", ""))
        first_port = int(order.get("first_port", 1024))
        key = flows, first_port, source
        if key not in prepared:
            ports = range(first_port, first_port + flows)
            prepared[key] = Batch(_crafted(source, host, ports) if flows else [bytes(PAYLOAD_BYTES)] * BURST)
        kind = (socket.SOCK_RAW, socket.IPPROTO_RAW) if flows else (socket.SOCK_DGRAM, 0)
        with socket.socket(socket.AF_INET, *kind) as sending:
            _enlarge(sending)
            sending.connect((host, DATAGRAM_PORT))
            _answer(_blast(sending, prepared[key], float(order["rate"]), float(order["seconds"])))


def _crafted(source: str, host: str, ports: range) -> list[bytes]:
    """A whole packet from each of the ports: that many sockets cannot be had."""
    from_, to = address_int(source), address_int(host)
    found = []
    for port in ports:
        size = 8 + PAYLOAD_BYTES
        datagram = struct.pack("!HHHH", port, DATAGRAM_PORT, size, 0) + bytes(PAYLOAD_BYTES)
        check = checksum(datagram, pseudo_header_sum(from_, to, ipv4.UDP, size))
        # With DF, as a socket sends it: without, the gateway must choose the identification of each packet itself.
        header = ipv4.header(from_, to, ipv4.UDP, size, flags=ipv4.DONT_FRAGMENT)
        found.append(header + datagram[:6] + check.to_bytes(2, "big") + datagram[8:])
    return found


def _blast(sending: socket.socket, batch: Batch, rate: float, seconds: float) -> dict[str, object]:
    descriptor = sending.fileno()
    sent = refused = at = 0
    began = time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        due = min(int(passed * rate) - sent, BURST) if rate else BURST
        if due <= 0:
            time.sleep(max(1 / rate, _PACE_S))
            continue
        if left := batch.send(descriptor, at, due):
            sent += left
            at = (at + left) % batch.count
        else:  # an ICMP error about an earlier one, or a full queue
            refused += 1
    return {"sent": sent, "seconds": time.perf_counter() - began, "refused": refused}


def numbered(host: str, rate: str) -> None:
    """Send numbered datagrams at a steady pace until a line comes; then tell how many."""
    pause_s = 1 / float(rate)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        sending.connect((host, NUMBERED_PORT))
        print("ready", flush=True)
        began, sent = time.monotonic(), 0
        while not select.select([sys.stdin], [], [], max(began + sent * pause_s - time.monotonic(), 0))[0]:
            with suppress(OSError):  # an ICMP error about an earlier one; a neighbour that does not answer yet
                sending.send(_NUMBER.pack(sent))
            sent += 1
    _answer({"sent": sent})


def arrivals(address: str) -> None:
    """Numbered datagrams as they come. A line on standard input, `first` or `all`, is answered: with the time
    (CLOCK_MONOTONIC, the same in every namespace) of the first one, once there is one; or with how many different ones
    came, the first and last number, and the longest time between two."""
    first_s, newest_s, longest_s = 0.0, 0.0, 0.0
    seen: set[int] = set()
    wants_first = False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        _enlarge(listening)
        listening.bind((address, NUMBERED_PORT))
        print("ready", flush=True)
        while True:
            ready = select.select([listening, sys.stdin], [], [])[0]
            if listening in ready:
                data = listening.recv(64)
                now = time.monotonic()
                first_s = first_s or now
                longest_s = max(longest_s, now - newest_s) if newest_s else 0.0
                newest_s = now
                seen.add(_NUMBER.unpack_from(data)[0])
            elif sys.stdin in ready:
                word = sys.stdin.readline().strip()
                if word == "first":
                    wants_first = True
                elif word == "all":
                    ends = (min(seen), max(seen)) if seen else (0, -1)
                    _answer({"received": len(seen), "first": ends[0], "last": ends[1], "longest_s": longest_s})
                    longest_s = 0.0
                else:
                    return
            if wants_first and first_s:
                wants_first = False
                _answer({"first_s": first_s})


# --- TCP -----------------------------------------------------------------------------------------------------------


def serve(address: str) -> None:
    """Serve exchanges and streams until killed."""
    exchanges = socket.create_server((address, EXCHANGE_PORT), backlog=4096)
    streams = socket.create_server((address, STREAM_PORT), backlog=64)
    for _ in range(_SERVERS):
        _fork(partial(_serve_exchanges, exchanges))
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = streams.accept()
        _fork(partial(_serve_stream, connection))
        connection.close()


def _serve_exchanges(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                connection.send(connection.recv(64))
                connection.recv(64)  # the caller closes first
            except OSError:
                continue


def _serve_stream(connection: socket.socket) -> None:
    order = connection.recv(1) + connection.recv(8)
    seconds = struct.unpack("!d", order[1:])[0]
    if order[:1] == b"d":
        _push(connection, seconds)
    else:
        connection.send(_NUMBER.pack(_pull(connection)))


def _push(connection: socket.socket, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection.sendall(_PIECE)
    connection.shutdown(socket.SHUT_WR)


def _pull(connection: socket.socket) -> int:
    buffer, total = bytearray(1 << 20), 0
    while count := connection.recv_into(buffer):
        total += count
    return total


def stream(host: str, direction: str, streams: str, seconds: str) -> dict[str, object]:
    """Bulk TCP: bytes that arrived and the time that it took."""
    counts = mmap.mmap(-1, _NUMBER.size * int(streams))

    def one(slot: int) -> None:
        with socket.create_connection((host, STREAM_PORT)) as connection:
            connection.sendall(direction[:1].encode() + struct.pack("!d", float(seconds)))
            if direction == "up":
                _push(connection, float(seconds))
                got = _NUMBER.unpack(connection.recv(_NUMBER.size))[0]
            else:
                got = _pull(connection)
        _NUMBER.pack_into(counts, slot * _NUMBER.size, got)

    began = time.monotonic()
    for child in [_fork(partial(one, slot)) for slot in range(int(streams))]:
        os.waitpid(child, 0)
    took_s = time.monotonic() - began
    total = sum(_NUMBER.unpack_from(counts, slot * _NUMBER.size)[0] for slot in range(int(streams)))
    return {"bytes": total, "seconds": took_s}


def connections(host: str, seconds: str, processes: str) -> dict[str, object]:
    """Connect, say 16 bytes, hear them again, close; as often as it goes."""
    counts = mmap.mmap(-1, 2 * _NUMBER.size * int(processes))
    end = time.monotonic() + float(seconds)

    def one(slot: int) -> None:
        done = failed = 0
        said = b"x" * 16
        while time.monotonic() < end:
            try:
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as calling:
                    calling.connect((host, EXCHANGE_PORT))
                    calling.send(said)
                    done += calling.recv(64) == said
            except OSError:
                failed += 1
            _NUMBER.pack_into(counts, slot * 16, done)
            _NUMBER.pack_into(counts, slot * 16 + 8, failed)

    children = [_fork(partial(one, slot)) for slot in range(int(processes))]
    stuck = 0
    while children and time.monotonic() < end + _GRACE_S:
        children = [child for child in children if os.waitpid(child, os.WNOHANG) == (0, 0)]
        time.sleep(0.005)
    for child in children:  # one waits for an answer that never comes
        stuck += 1
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    numbers = [_NUMBER.unpack_from(counts, at)[0] for at in range(0, len(counts), 8)]
    return {"done": sum(numbers[::2]), "failed": sum(numbers[1::2]) + stuck, "seconds": float(seconds)}


_SERVICES: dict[str, Callable[..., None]] = {
    "serve": serve,
    "sink": sink,
    "datagrams": datagrams,
    "arrivals": arrivals,
    "numbered": numbered,
}
_CLIENTS: dict[str, Callable[..., dict[str, object]]] = {"connections": connections, "stream": stream}


def main(words: Sequence[str]) -> int:
    """The command line."""
    if words[0] in _SERVICES:
        _SERVICES[words[0]](*words[1:])
    else:
        _answer(_CLIENTS[words[0]](*words[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
