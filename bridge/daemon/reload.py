"""A reload, stage by stage. Frames keep passing: a thread reads, and the loop only swaps.

1. **read** (`Reading`, in a thread): the files become a `Setup`. Should: read all files with the rights of the gateway,
   or by the warden. Must not: touch the running gateway.
2. **judge** (`Reloader.refusal`): may this setup take the place of the running one? Should: name every key that needs a
   restart. Must not: change anything, because a refused reload leaves the gateway as it was.
3. **walk** (`Reloader._reconfigure_walk`): routes, addresses, links and flows. Should: keep flows whose decision is the
   same. Must not: fail; stage 2 has refused all that `Gateway.reconfigure` would refuse.
4. **tunnel** (`Reloader._reconfigure_tunnel`): peers, keys and announcements. It comes after the walk, because packets
   may leave by a new peer as soon as it is there.
5. **tell** (`Reloader._end`): the service manager, the log, and the clients that asked.

A reload that is asked for while another one reads is done after it, because its files may have changed since.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bridge.config.into_walk import gateway_settings
from bridge.config.keys import changed_for_good
from bridge.config.lists import ListReader, ListRule
from bridge.config.load import ConfigError
from bridge.control.answers.question import Subject, document
from bridge.control.answers.route import moves_to
from bridge.control.children import Children, InFork
from bridge.control.connection import Connection
from bridge.control.protocol import BAD_CONFIGURATION, FAILED, Document, QuestionRefused
from bridge.daemon.notify import notify, reloading
from bridge.daemon.setup import Setup, read_setup, warn
from bridge.loop.affinity import roam
from bridge.loop.loop import Loop
from bridge.state.lists import ListCopies
from bridge.walk.forwarding.peer_prefixes import announced_layers

log = logging.getLogger(__name__)

_SWITCH_S = 0.0005
"""The longest time that the loop waits for the interpreter while a thread reads files."""


class Reloader:
    """Reloader of the configuration at `path`, one at a time.

    `subject`: what is reconfigured; `children`: begin none while the thread reads; `status`: the line for the service
    manager once a reload is done; `lists`: the last good copies of the lists, None to begin with those in use.
    """

    def __init__(
        self,
        path: Path,
        subject: Subject,
        loop: Loop,
        children: Children,
        status: str,
        lists: ListCopies | None = None,
    ) -> None:
        self._path = path
        self._lists = lists or ListCopies(None)
        assert subject.config is not None, "a daemon has a configuration"
        self._subject = subject
        self._config = subject.config
        self._gateway = subject.gateway
        self._tunnel = subject.tunnel
        self._loop = loop
        self._children = children
        self._status = status
        self._reading: Reading | None = None
        self._is_wanted_again = False
        self._waiting: list[Connection] = []
        """Clients whose reload begins when the present one has ended."""
        self._is_force_wanted = False
        """One of them takes lists that are bad, empty or halved."""
        if lists is None:
            self._lists.keep(self._config.prefix_files.texts)

    def hang_up(self) -> None:
        """SIGHUP: reload."""
        if self._reading is not None:
            self._is_wanted_again = True
        else:
            self._begin([])

    def answer(self, arguments: Document, client: Connection) -> InFork | None:
        """The handler of `reload`. With `dry_run` a child answers with the moves, because it reads all files; without,
        the client gets its answer when its reload has ended."""
        is_forced = arguments.get("force") is True
        if arguments.get("dry_run"):
            return InFork(partial(self._moves, is_forced=is_forced))
        if self._reading is not None:
            self._waiting.append(client)
            self._is_force_wanted |= is_forced
        else:
            self._begin([client], is_forced=is_forced)
        return None

    def _begin(self, clients: list[Connection], *, is_forced: bool = False) -> None:
        reloading()
        self._children.hold()
        self._reading = Reading(self._loop, partial(self._read, is_forced=is_forced), partial(self._end, clients))

    def _read(self, *, is_forced: bool) -> Setup:
        rule = ListRule.FORCE if is_forced else ListRule.RELOAD
        return read_setup(self._path, lambda _config: ListReader(rule, self._lists.copies))

    def _end(self, clients: list[Connection], read: Setup | Exception) -> None:
        """Stages 2 to 5, in the loop."""
        self._reading = None
        try:
            refused = self._swap(read)
        except Exception as error:  # clients must hear of our bug, and children must be let go on
            log.error("a bug in taking a configuration over; restart the gateway", exc_info=error)
            refused = QuestionRefused(FAILED, "the gateway failed in taking the configuration over: restart it")
        notify("READY=1", self._status if refused is None else "STATUS=a reload was refused, forwarding as before")
        for client in clients:
            if refused is None:
                client.answer(document(warnings=self._config.warnings))
            else:
                client.refuse(refused)
        self._children.release()  # questions asked meanwhile are answered before the files are read once more
        if self._is_wanted_again or self._waiting:
            waiting, self._waiting, self._is_wanted_again = self._waiting, [], False
            is_forced, self._is_force_wanted = self._is_force_wanted, False
            self._begin(waiting, is_forced=is_forced)

    def _swap(self, read: Setup | Exception) -> QuestionRefused | None:
        """Let the new setup take the place of the old one, or log why not and change nothing."""
        refused = self.refusal(read)
        if refused is not None:
            log.error("reload refused, nothing changed:")
            for line in refused.says.splitlines():
                log.error("%s", line)
            if isinstance(read, Setup):
                read.peers.wipe()
            return refused
        assert not isinstance(read, Exception)
        for stage in (warn, self._reconfigure_walk, self._reconfigure_tunnel):
            stage(read)
        self._lists.keep(read.config.prefix_files.texts)
        log.info("reloaded")
        return None

    def refusal(self, read: Setup | Exception) -> QuestionRefused | None:
        """Why this may not take the place of the running setup; None where it may. Nothing is changed."""
        if isinstance(read, ConfigError):
            return QuestionRefused(BAD_CONFIGURATION, "\n".join(read.errors))
        if isinstance(read, Exception):
            log.error("a bug in reading the configuration", exc_info=read)
            return QuestionRefused(FAILED, "the configuration could not be read; the gateway's log says more")
        keys = list(changed_for_good(self._config, read.config))
        if keys:
            says = f"{', '.join(keys)}: cannot change while the gateway runs; restart it instead"
            return QuestionRefused(FAILED, says)
        error = None if self._tunnel is None else self._tunnel.refusal_of(read.peers)
        return None if error is None else QuestionRefused(BAD_CONFIGURATION, error)

    def _reconfigure_walk(self, setup: Setup) -> None:
        self._config = self._subject.config = setup.config
        self._gateway.unreachable_nodes = setup.unreached
        self._loop.carry_out(
            self._gateway.reconfigure(gateway_settings(setup.config), setup.routes, self._loop.clock())
        )

    def _reconfigure_tunnel(self, setup: Setup) -> None:
        if self._tunnel is not None:
            self._tunnel.reconfigure(setup.peers, setup.unreached)

    def _moves(self, *, is_forced: bool) -> Document:
        """The moves that a reload would make. It runs in a fork: reading takes long, and the thread of a reload may not
        read beside it."""
        try:
            setup = self._read(is_forced=is_forced)
        except ConfigError as error:
            raise QuestionRefused(BAD_CONFIGURATION, "\n".join(error.errors)) from error
        refused = self.refusal(setup)
        if refused is not None:
            raise refused
        if self._tunnel is not None:
            announced = self._tunnel.announced_under(setup.peers)
            setup.routes.announce(announced_layers(setup.config.peer, announced, has_tunnel=setup.config.has_vpn))
        return moves_to(self._gateway, setup.routes, self._loop.clock())


class Reading:
    """A thread that reads configuration and lists. The loop calls `done` with the setup, or with the exception that
    reading it raised."""

    def __init__(self, loop: Loop, read_files: Callable[[], Setup], done: Callable[[Setup | Exception], None]) -> None:
        self._loop = loop
        self._read_files = read_files
        self._done = done
        self._read: Setup | Exception | None = None
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._switch_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        loop.add(self._event, self._finished)
        self._thread = threading.Thread(target=self._work, name="reload", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        roam()
        try:
            self._read = self._read_files()
        except Exception as error:  # noqa: BLE001 - handed to the loop, which tells an operator's mistake from our bug
            self._read = error
        os.eventfd_write(self._event, 1)

    def _finished(self, _events: int) -> None:
        self._thread.join()
        sys.setswitchinterval(self._switch_s)
        self._loop.remove(self._event)
        os.close(self._event)
        assert self._read is not None
        self._done(self._read)
