"""The results of `trials.floods.run` as tables for people, and the page docs/floods.md."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "floods.md"
WAYS = ("tap1", "vpn")
MOST_DROPS = 4

_HEAD = """\
# Floods

<!-- Written by `python -m trials.floods --write-docs`; changes are lost. -->

`make floods` measures this again. A LAN host keeps ordinary flows by both ways out; they are watched without a flood
and then with one, in the same run against the same daemon. Each flood has a daemon of its own. Flooder, gateway and
both ends of the ordinary flows share the machine's cores: the figures contain their effect on each other. The reasons
for these figures, and the rules of policing: [decision 0033](decisions/0033-policing-of-the-walk.md). The bounds of
each store: [bounds](bounds.md).
"""

_LEGEND = """\
- *rate*: what was sent, frames (initiations, connections) a second. *read*: the share of all frames that reached the
  port's device, ordinary ones included, which the gateway read; the rest found no room in the kernel's queue.
- *CPU*: what the gateway used, in cores.
- The first 0.3 s of a flood are not measured: in the first 1,536 frames the gateway sees that it is behind.
- *loss*, *p50*, *p99*: of datagrams of an established flow, 500 a second; *there* is towards the far end.
- *TCP*: the bytes that a connection carried during the flood, as a share of those just before.
- *new flows*: how many of those that the ordinary host began (50 a second) got no answer; *first* is the time there and
  back of the first datagram of one.
- *memory*: the daemon's resident memory before the flood, and its peak during it.
"""


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _pair(found: dict[str, Any], way: str, key: str, label: str | None = None) -> str:
    values = []
    for when in ("quiet", "flooded"):
        value = found[when][way].get(key)
        values.append("-" if value is None else f"{value[label] if label else value * 100:.2f}")
    return " → ".join(values)


def tables(floods: Sequence[dict[str, Any]]) -> str:
    """Both tables, as text."""
    flows = [
        [
            found["name"],
            way,
            _pair(found, way, "loss"),
            _pair(found, way, "there_ms", "p50"),
            _pair(found, way, "there_ms", "p99"),
            _pair(found, way, "back_ms", "p99"),
            f"{found['flooded'][way]['tcp_mbit'] / max(found['quiet'][way]['tcp_mbit'], 1e-9):.2f}",
            _pair(found, way, "fresh_loss"),
            _pair(found, way, "fresh_ms", "p50"),
        ]
        for found in floods
        for way in WAYS
    ]
    costs = [
        [
            found["name"],
            f"{found['rate'] / 1000:.1f}",
            "-" if found["read"] is None else f"{min(found['read'] / max(found['sent'], 1), 1):.2f}",
            f"{found['busy']:.2f}",
            "{before} → {peak}".format(**{key: f"{kib / 1024:.0f}" for key, kib in found["memory_kib"].items()}),
            "-" if found["links"] is None else str(found["links"]),
            str(found["descriptors"]),
            ", ".join(
                f"{reason} {count}"
                for reason, count in sorted(found["drops"].items(), key=lambda item: -item[1])[:MOST_DROPS]
            )
            or "-",
        ]
        for found in floods
    ]
    return "\n".join(
        (
            _table(
                ("flood", "by", "loss %", "there p50 ms", "there p99 ms", "back p99 ms", "TCP", "new flows lost %",
                 "first p50 ms"),
                flows,
            ),
            "",
            _table(("flood", "rate k/s", "read", "CPU", "memory MiB", "links", "descriptors", "drops"), costs),
        )
    )  # fmt: skip


def write(floods: Sequence[dict[str, Any]], seconds: float, path: Path = PAGE) -> Path:
    """Write the page; where it is."""
    kinds = "\n".join(f"- **{found['name']}**: {found['says']}." for found in floods)
    run = (
        f"This run: {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, kernel {platform.release()},"
        f" Python {platform.python_version()}; {seconds:g} s a measurement; without → with the flood."
    )
    path.write_text("\n".join((_HEAD, run, "", tables(floods), "", kinds, "", _LEGEND)))
    return path
