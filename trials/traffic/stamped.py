"""Datagrams that say when they were sent, for the lab alone: `python -m trials.traffic.stamped WORD ...`.

    send HOST              datagrams as fast as they go, until a line comes on standard input; prints how many
    hear ADDRESS FILE      says `ready`, and writes a record for every datagram to FILE until it is killed

All clocks of one machine agree: who knows when something was changed can tell which datagrams were sent after it.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from pathlib import Path
from typing import NamedTuple

PORT = 7788
_RECORD = struct.Struct("!QQ4s")
_STAMP = struct.Struct("!Q")
_RUN = 16
"""Datagrams between two looks at standard input."""


class HeardStamps(NamedTuple):
    """A datagram that arrived: when it was sent and heard (monotonic ns), and its source as the hearer saw it."""

    sent_ns: int
    heard_ns: int
    source: str


def send(host: str) -> None:
    """See above; what the kernel refuses for a moment is left out."""
    count = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        sending.connect((host, PORT))
        while not select.select([sys.stdin], [], [], 0)[0]:
            for _ in range(_RUN):
                try:
                    sending.send(_STAMP.pack(time.monotonic_ns()))
                    count += 1
                except OSError:  # an ICMP error about an earlier one, or a full queue
                    continue
    print(json.dumps({"sent": count}))


def hear(address: str, path: str) -> None:
    """See above."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hearing, Path(path).open("wb", buffering=0) as records:
        hearing.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        hearing.bind((address, PORT))
        print("ready", flush=True)
        while True:
            datagram, (source, _) = hearing.recvfrom(64)
            sent_ns = _STAMP.unpack(datagram)[0]
            records.write(_RECORD.pack(sent_ns, time.monotonic_ns(), socket.inet_aton(source)))


def heard(path: Path) -> list[HeardStamps]:
    """The stamps that `hear` has written so far."""
    data = path.read_bytes()
    whole = len(data) // _RECORD.size * _RECORD.size
    records = _RECORD.iter_unpack(data[:whole])
    return [HeardStamps(sent_ns, heard_ns, socket.inet_ntoa(source)) for sent_ns, heard_ns, source in records]


def main(words: list[str]) -> int:
    """The command line."""
    if words[0] == "send":
        send(words[1])
    else:
        hear(words[1], words[2])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
