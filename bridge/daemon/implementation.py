"""Which implementation of the fast path serves: the compiled one where it was built, else its plain twin.

`TAPBRIDGE_FAST=0` in the environment forces the plain one. `bridgectl stats` says which is in use.
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
    from alias.store import CompiledStore
    from bridge.ports.burst import CompiledBursts
    from bridge.ports.police import CompiledPolice
    from bridge.ports.udp.lanes import Lanes
    from flow.fast import CompiledTable
except ImportError:
    CompiledStore = CompiledTable = CompiledBursts = CompiledPolice = Lanes = None  # type: ignore[assignment,misc]  # a stub cannot say that a module may be missing


def open_table(
    rng: random.Random, entries: int = ENTRIES, environment: Mapping[str, str] = os.environ
) -> PlainTable | CompiledTable:
    """An empty flow table, the best there is here. `rng`: for the key of its hash. Of more `entries` than a table can
    have, the flows that find no room are walked."""
    entries = min(entries, MOST_ENTRIES)
    if CompiledTable is None or environment.get("TAPBRIDGE_FAST") == "0":
        return PlainTable(entries)
    return CompiledTable(entries, rng.getrandbits(64))


def store_maker(rng: random.Random, table: Table) -> MakeStore:
    """What keeps the links beside this flow table. `rng`: for the keys of its hashes."""
    if CompiledStore is None or not table.compiled:
        return PlainStore
    return partial(CompiledStore, seed=rng.getrandbits(32))


def open_bursts(table: PlainTable | CompiledTable, lanes: Lanes | None = None) -> Bursts:
    """What moves bursts of frames with this table. `lanes`: where packets for peers go."""
    if isinstance(table, PlainTable):
        return PlainBursts(table)
    bursts = CompiledBursts(table, lanes)
    if lanes is not None:
        lanes.join(bursts)
    return bursts


def open_police(table: PlainTable | CompiledTable, senders: Senders, link_bytes: int, rng: random.Random) -> Police:
    """What judges the frames of one port that are to be walked, for bursts with this table."""
    seed = rng.getrandbits(64)
    if isinstance(table, PlainTable):
        return PlainPolice(senders, link_bytes, seed)
    return CompiledPolice(senders, link_bytes, seed)


def may_share(table: PlainTable | CompiledTable) -> bool:
    """Let several threads use the table, where that is of use: the plain one works under the interpreter's lock."""
    if isinstance(table, PlainTable):
        return False
    table.share()
    return True


def open_lanes(cores: Cores) -> Lanes | None:
    """What carries packets of the tunnel with this cipher; None where it is the plain one: the uplink does it then."""
    cipher = cores.compiled
    return None if cipher is None or Lanes is None else Lanes(cipher)
