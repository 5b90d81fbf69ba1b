"""`capture` on the control socket: every frame of a port is sent to the client as it passes.

The first answer is `{"version": 1, "port": "tap0", "kind": "tap"}`; then a record a line: `{"t_ns", "port",
"direction", "frame"}`, `t_ns` nanoseconds since 1970 by the wall clock (people compare it with other logs), `direction`
`in` or `out`, `frame` in base64: Ethernet on a tap, raw IP on a tun, a super-frame uncut. `partial_checksum` is true
where the transport checksum is not whole yet, `segment_bytes` the payload of each segment of a super-frame. `lost`
counts the frames left out before a record because the client was slow.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping

from bridge.control.connection import Connection
from bridge.control.protocol import FAILED, USAGE, VERSION, Document, QuestionRefused
from bridge.loop.loop import Loop
from bridge.ports.base import PortKind
from wire.gso import GsoHeader

MOST_CAPTURES = 16
"""Each may hold `bridge.control.connection.MOST_UNSENT_BYTES` for a reader that is slow."""


def capture(loop: Loop, ports: Mapping[str, PortKind], arguments: Document, client: Connection) -> None:
    """Stream the frames of `arguments["port"]` until the client hangs up.

    Raises `QuestionRefused` for a port that is not in `ports`, and where `MOST_CAPTURES` go on already.
    """
    port = arguments.get("port")
    if not isinstance(port, str) or port not in ports:
        raise QuestionRefused(USAGE, f"{port!r} is no port that can be captured: {', '.join(ports)}")
    if loop.watching >= MOST_CAPTURES:
        raise QuestionRefused(FAILED, f"{MOST_CAPTURES} captures are under way already")

    def see(name: str, direction: str, frame: bytes | bytearray, gso: GsoHeader | None) -> None:
        if not client.has_room():
            return
        record: Document = {
            "t_ns": time.time_ns(),
            "port": name,
            "direction": direction,
            "frame": base64.b64encode(frame).decode(),
        }
        if gso is not None and gso.partial:
            record["partial_checksum"] = True
        if gso is not None and gso.gso_type:
            record["segment_bytes"] = gso.gso_bytes
        client.record(record)

    client.on_close = lambda: loop.unwatch(port, see)
    client.begin_stream({"version": VERSION, "port": port, "kind": ports[port]})
    loop.watch(port, see)
