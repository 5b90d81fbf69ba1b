"""Stage 3 of a start: flow table, walk and loop, and the links of the run before."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bridge.config.into_walk import gateway_settings
from bridge.config.model import Config
from bridge.daemon.implementation import open_table, store_maker
from bridge.daemon.setup import Setup
from bridge.loop.loop import Loop
from bridge.state.leases import LeaseFile
from bridge.state.leases import beside as lease_beside
from bridge.state.links import link_file_of, open_link_file
from bridge.state.lists import ListCopies, copies_path
from bridge.walk.gateway import Gateway
from flow.plain import PlainTable

if TYPE_CHECKING:
    from flow.fast import CompiledTable  # it may not have been compiled


class Core(NamedTuple):
    """The walk and the loop that drives it. `config`: the configuration of the start; `table`: the flow table, in which
    both work; `lists`: the last good copies of the lists."""

    config: Config
    gateway: Gateway
    loop: Loop
    table: PlainTable | CompiledTable
    rng: random.Random
    lists: ListCopies


def make_core(setup: Setup, socket_path: Path, stack: ExitStack) -> Core:
    """Make flow table, walk and loop, and take up the links that an earlier run left.

    Should: bring links back before the first frame can make one that takes their ports. Must not: start a thread,
    because stage 9 needs a process with one thread.
    """
    rng = random.SystemRandom()
    table = open_table(rng, 2 * setup.config.alias.max_links)
    gateway = Gateway(
        gateway_settings(setup.config), setup.routes, rng, table=table, make_store=store_maker(rng, table)
    )
    gateway.unreachable_nodes = setup.unreached
    loop = Loop(gateway)
    stack.callback(loop.close)
    _keep_lease(setup, gateway, socket_path, stack)
    _keep_links(setup, gateway, socket_path, loop.clock(), stack)
    return Core(setup.config, gateway, loop, table, rng, _keep_lists(setup, socket_path, stack))


def _keep_lists(setup: Setup, socket_path: Path, stack: ExitStack) -> ListCopies:
    """Write the lists that are in use down, for a start that finds a spoiled one."""
    copies = ListCopies(copies_path(socket_path))
    stack.callback(copies.close)
    copies.keep(setup.config.prefix_files.texts)
    return copies


def _keep_lease(setup: Setup, gateway: Gateway, socket_path: Path, stack: ExitStack) -> None:
    """Ask for the address of an earlier run, and write ours down for the next run. Links of the address wait for it."""
    service, tap1 = gateway.leases, setup.config.tap1
    if service is None or tap1 is None or tap1.dhcp.state_file == "":
        return
    path = tap1.dhcp.state_file or lease_beside(socket_path)
    file = LeaseFile(path, service.client.settings.mac)
    stack.callback(file.close)
    gateway.remember_lease(file.read())
    service.keep = file.write


def _keep_links(setup: Setup, gateway: Gateway, socket_path: Path, now: int, stack: ExitStack) -> None:
    """Take up the links that an earlier run left, and write ours down for the next run."""
    path = setup.config.alias.state_file
    if path == "":
        return
    gateway.ledger = open_link_file(
        link_file_of(socket_path) if path is None else path,
        gateway.aliases,
        gateway.interfaces,
        gateway.decision.crossing,
        now,
    )
    if gateway.ledger is not None:
        stack.callback(gateway.ledger.close)
