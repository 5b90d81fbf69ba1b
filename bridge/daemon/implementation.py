"""The choice between the compiled fast path and its plain twin: the compiled one where it was built.

`TAPBRIDGE_FAST=0` in the environment forces the plain one. `bridgectl stats` says which of the two is in use.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from functools import partial

from alias.plain import PlainStore
from alias.table import MakeStore
from bridge.ports.bursts import Bursts, PlainBursts
from bridge.ports.policing import PlainPolice, Police, Senders
from bridge.vpn.ciphers import Cores
from flow.plain import PlainTable
from flow.table import ENTRIES, MOST_ENTRIES, Table

try:
    from alias.compiled.store import CompiledStore
    from bridge.ports.burst import CompiledBursts
    from bridge.ports.police import CompiledPolice
    from bridge.ports.udp.lanes import Lanes
    from flow.fast import CompiledTable
except ImportError:
    CompiledStore = CompiledTable = CompiledBursts = CompiledPolice = Lanes = None  # type: ignore[assignment,misc]  # a stub cannot say that a module may be missing


def open_table(
    rng: random.Random, entries: int = ENTRIES, environment: Mapping[str, str] = os.environ
) -> PlainTable | CompiledTable:
    """An empty flow table. `rng` gives the key of its hash. `entries`: the flows that it can hold, at most
    `MOST_ENTRIES`; a flow that finds no room is walked."""
    entries = min(entries, MOST_ENTRIES)
    if CompiledTable is None or environment.get("TAPBRIDGE_FAST") == "0":
        return PlainTable(entries)
    return CompiledTable(entries, rng.getrandbits(64))


def store_maker(rng: random.Random, table: Table) -> MakeStore:
    """Choose the store of links beside this flow table. `rng`: for the keys of its hashes."""
    if CompiledStore is None or not table.compiled:
        return PlainStore
    return partial(CompiledStore, seed=rng.getrandbits(32))


def open_bursts(table: PlainTable | CompiledTable, lanes: Lanes | None = None) -> Bursts:
    """The mover of bursts of frames with this table. `lanes` take packets for peers."""
    if isinstance(table, PlainTable):
        return PlainBursts(table)
    bursts = CompiledBursts(table, lanes)
    if lanes is not None:
        lanes.join(bursts)
    return bursts


def open_police(table: PlainTable | CompiledTable, senders: Senders, link_bytes: int, rng: random.Random) -> Police:
    """The judge of frames that come in by one port and have to be walked, for bursts with this table. `link_bytes`: the
    length of the port's link header."""
    seed = rng.getrandbits(64)
    if isinstance(table, PlainTable):
        return PlainPolice(senders, link_bytes, seed)
    return CompiledPolice(senders, link_bytes, seed)


def may_share(table: PlainTable | CompiledTable) -> bool:
    """Let several threads use the table; False for the plain one, which works under the interpreter's lock anyway."""
    if isinstance(table, PlainTable):
        return False
    table.share()
    return True


def open_lanes(cores: Cores) -> Lanes | None:
    """Lanes that carry packets of the tunnel with this cipher; None for the plain cipher, and the port `vpn` carries
    them itself."""
    cipher = cores.compiled
    return None if cipher is None or Lanes is None else Lanes(cipher)
