"""`bridgectl run`: a gateway with real ports, from its configuration file to nothing left behind but state files.

`run` is the whole life. `bridge.daemon.start` opens everything in numbered stages, `Daemon` forwards until something
stops it, and an `ExitStack` closes everything in reverse order. SIGHUP reloads (`bridge.daemon.reload`), SIGTERM and
SIGINT stop.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bridge.config.lists import ListReader, ListRule
from bridge.config.load import Config, ConfigError
from bridge.control.answers.question import Subject, document
from bridge.control.children import Children
from bridge.control.connection import Connection
from bridge.control.handlers import handlers_for
from bridge.control.protocol import BAD_CONFIGURATION, FAILED, OK, Document
from bridge.daemon import start
from bridge.daemon.core import Core, make_core
from bridge.daemon.instance import AlreadyRunning
from bridge.daemon.log import log_to_stderr
from bridge.daemon.memory import collect_rarely, keep_freed_memory
from bridge.daemon.notify import Watchdog, notify, watchdog_s
from bridge.daemon.reload import Reloader
from bridge.daemon.setup import Setup, StartFailed, read_setup
from bridge.daemon.tunnel import OpenTunnel, open_tunnel
from bridge.daemon.waiting import wait_for_bridges
from bridge.loop.affinity import Affinity, first_choice
from bridge.loop.signals import Signals
from bridge.loop.workers import Workers
from bridge.ports.base import Port, PortError, PortGone
from bridge.privsep.helper import Helper
from bridge.privsep.privileges import forbid_core_dumps
from bridge.state.lists import copies_path, read_copies

log = logging.getLogger(__name__)


def run(config_path: Path, socket_path: Path | None = None, wait_s: float | None = None) -> int:
    """Be the gateway until a signal; the exit code.

    `socket_path` stands in for `control.socket`. `wait_s`: the longest time in seconds that bridges are waited for;
    None: a missing one ends the start.
    """
    log_to_stderr()
    forbid_core_dumps()  # before the first key is read
    try:
        with ExitStack() as stack:
            helper = Helper()
            stack.callback(helper.close)
            lists_for = partial(_lists_at_start, socket_path)
            try:
                setup = read_setup(config_path, lists_for)
                if wait_s is not None and wait_for_bridges(setup.config, wait_s):
                    setup.peers.wipe()
                    setup = read_setup(config_path, lists_for)
            except ConfigError as error:
                sys.stderr.write("".join(f"{fault}\n" for fault in error.errors))
                return BAD_CONFIGURATION
            keep_freed_memory()
            daemon = started(config_path, setup, socket_path or setup.config.control.socket, helper, stack)
            collect_rarely()
            return daemon.serve()
    except (AlreadyRunning, PortError, StartFailed) as error:
        for line in str(error).splitlines():
            log.error("%s", line)
        return FAILED


def _lists_at_start(socket_path: Path | None, config: Config) -> ListReader:
    return ListReader(ListRule.START, read_copies(copies_path(socket_path or config.control.socket)))


def started(config_path: Path, setup: Setup, socket_path: Path, helper: Helper, stack: ExitStack) -> Daemon:
    """A daemon that is ready to serve, by the stages of `bridge.daemon.start`. Everything opened is closed by `stack`.

    Raises `StartFailed`, `AlreadyRunning` or `PortError`; the stack then closes what the earlier stages have opened.
    """
    user = start.choose_user(setup)  # 1
    claim = start.claim(socket_path, stack)  # 2
    core = make_core(setup, claim.socket_path, stack)  # 3
    signals = Signals([signal.SIGHUP, signal.SIGTERM, signal.SIGINT])  # one that comes during the start waits
    stack.callback(signals.close)
    tunnel = open_tunnel(setup, core, stack)  # 4
    made = start.make_devices(setup, claim, user, helper, core, tunnel, stack)  # 5
    workers = start.join_ports(setup, core, tunnel, made.ports, stack)  # 6
    hooks = start.start_hooks(setup, core, made.gateway_before, stack)  # 7
    daemon = Daemon(core, made.ports, tunnel, workers, hooks)
    core.loop.on_gone = daemon.port_gone
    children = Children(core.loop)
    reloader = Reloader(config_path, daemon.subject, core.loop, children, daemon.status, core.lists)
    handlers = handlers_for(daemon.subject, core.loop, {name: port.kind for name, port in made.ports.items()})
    handlers |= {"reload": reloader.answer, "stop": daemon.answer_stop}
    start.serve_people(setup, claim, daemon.subject, core.loop, handlers, children, stack)  # 8
    start.give_up_rights(setup, claim, user, tunnel, helper, stack)  # 9
    signals.deliver(
        core.loop, {signal.SIGHUP: reloader.hang_up, signal.SIGTERM: daemon.stop, signal.SIGINT: daemon.stop}
    )
    return daemon


class Daemon:
    """A gateway that forwards until something stops it. `subject`: what people ask about; `status`: the line that the
    service manager shows."""

    def __init__(
        self,
        core: Core,
        ports: Mapping[str, Port],
        tunnel: OpenTunnel | None,
        workers: Workers | None,
        hooks: start.Hooks,
    ) -> None:
        self._loop = core.loop
        self._gateway = core.gateway
        self._tunnel = tunnel
        self._workers = workers
        self._hooks = hooks
        self._ports = ", ".join(ports) or "no port"
        self._exit_code = OK
        self._is_stopping = False
        self.status = f"STATUS=forwarding on {self._ports}"
        self.subject = Subject(core.gateway, config=core.config)
        if tunnel is not None:
            self.subject.tunnel, self.subject.cores = tunnel.port, tunnel.cores
            self.subject.segmentation = tunnel.segmentation

    def serve(self) -> int:
        """Forward until something stops us; the exit code."""
        if self._tunnel is not None:
            self._tunnel.resolver.begin()
        self._loop.carry_out(self._gateway.start(self._loop.clock()))
        if self._tunnel is not None:
            self._tunnel.port.begin()
        if self._workers is not None:
            self._workers.start()  # from here on the gateway is used under the loop's lock
        log.info("forwarding on %s", self._ports)
        if self._hooks.up is not None:
            self._hooks.up.go(self._ready)
        else:
            self._ready()
        if self._workers is None:
            Affinity(self._loop, first_choice(has_lan="tap0" in self._gateway.interfaces)).hold()
        within_s = watchdog_s()
        if within_s is not None:
            Watchdog(self._loop, within_s, self._stuck)
        self._loop.run()
        return self._exit_code

    def _stuck(self, within_s: float) -> str:
        return self._workers.stuck(within_s) if self._workers is not None else ""

    def _ready(self) -> None:
        if not self._is_stopping:
            notify("READY=1", f"MAINPID={os.getpid()}", self.status)

    def stop(self) -> None:
        """The first call lets the hook `down` run while frames still pass; a second one ends the gateway at once."""
        if self._is_stopping:
            self._loop.stop()
            return
        self._is_stopping = True
        log.info("stopping")
        notify("STOPPING=1", "STATUS=stopping")
        if self._hooks.down is not None:
            self._hooks.down.go(self._loop.stop)
        else:
            self._loop.stop()

    def port_gone(self, port: Port, gone: PortGone) -> None:
        """A device was removed from under us: stop, with the exit code of a failure."""
        log.error("%s: %s; a gateway without it is of no use and stops", port.name, gone)
        self._exit_code = FAILED
        if not self._is_stopping:
            self.stop()

    def answer_stop(self, _arguments: Document, _client: Connection) -> Document:
        """The handler of `stop`. The answer leaves in the present turn of the loop, which may be the last one."""
        if not self._is_stopping:
            self.stop()
        return document(pid=os.getpid())
