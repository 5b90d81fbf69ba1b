"""`bridgectl flows`: the flow table."""

from __future__ import annotations

from bridge.control.answers.question import Arguments, Subject, document, question, seconds
from bridge.control.protocol import Document
from bridge.walk.trace import end_text, protocol_name


@question("flows", in_fork=True)  # there may be hundreds of thousands
def show(subject: Subject, arguments: Arguments, now: int) -> Document:
    """The flows that were seen lately, the busiest first."""
    fast = subject.gateway.fast
    live = sorted(fast.live(now), key=lambda flow: (-flow.bytes, flow.inside, flow.outside))
    return document(
        flows=[
            {
                "in": fast.name(flow.in_port),
                "out": fast.name(flow.out_port),
                "protocol": protocol_name(flow.protocol),
                "inside": end_text(*flow.inside),
                "outside": end_text(*flow.outside),
                "packets": flow.packets,
                "bytes": flow.bytes,
                "idle_s": seconds(now - flow.last_seen_ns),
                "fast": flow.fast and fast.repeats,
            }
            for flow in live
        ]
    )
