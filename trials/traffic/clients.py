"""A crowd at the daemon's sockets, for the lab alone: `python -m trials.traffic.clients SOCKET HOST:PORT COUNT`.

COUNT connections to the control socket and as many to the metrics, all at once, which say nothing and do not leave. It
says `ready`, begins with the first line on standard input, ends with the second, and prints how many think that they
are in.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import sys
import time

_AT_ONCE = 50
_SPARE_DESCRIPTORS = 64
_SETTLE_S = 1.0


def _opened(address: str | tuple[str, int]) -> socket.socket | None:
    """A connection that has begun, or None where the listener's backlog is full."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        one.connect(address)
    except BlockingIOError:
        if family == socket.AF_INET:  # it is under way
            return one
        one.close()
        return None
    except OSError:
        one.close()
        return None
    return one


def _hung_up(one: socket.socket) -> bool:
    """Whether the far end has closed, with or without a word."""
    try:
        while one.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_there(one: socket.socket) -> bool:
    """Whether the connection stands: the far end's kernel has it at least, and nobody has hung up."""
    try:
        one.getpeername()
    except OSError:
        return False
    return not _hung_up(one)


def gather(addresses: list[str | tuple[str, int]], count: int) -> dict[str, object]:
    """Connect, until told to stop; how many were begun, how many of them are still in at the end. A client that was
    shown out makes room for the next, as long as there are any to come."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    room = most - _SPARE_DESCRIPTORS
    begun = dict.fromkeys(range(len(addresses)), 0)
    inside: list[set[socket.socket]] = [set() for _ in addresses]
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        for number, address in enumerate(addresses):
            if sum(map(len, inside)) >= room:
                inside = [{one for one in there if not _hung_up(one)} for there in inside]
            for _ in range(_AT_ONCE):
                if begun[number] >= count or sum(map(len, inside)) >= room:
                    break
                one = _opened(address)
                if one is None:
                    break
                begun[number] += 1
                inside[number].add(one)
    sent, passed_s = sum(begun.values()), time.monotonic() - began
    time.sleep(_SETTLE_S if sent else 0)
    left = [sum(_is_there(one) for one in there) for there in inside]
    return {"ok": sent > 0, "sent": sent, "rate": sent / max(passed_s, 1e-9), "left": left}


def main(words: list[str]) -> int:
    """The command line."""
    path, metrics, count = words
    host, _, port = metrics.rpartition(":")
    print(json.dumps(gather([path, (host, int(port))], int(count))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
