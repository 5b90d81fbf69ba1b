"""`bridgectl run`: a gateway with real ports, from its configuration file to nothing left behind but state files.

`run` is the whole life: configuration (all faults at once, nothing touched), the lock of the control socket, devices,
the walk, control socket and metrics, hooks, the loop; and all of it backwards. SIGHUP reloads, SIGTERM and SIGINT stop.
A reload reads its files in a thread and only swaps what was read in the loop, so that frames keep passing.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bridge.config import files
from bridge.config import load as config
from bridge.config.into_devices import changed_for_good, plans_from
from bridge.config.into_routes import announced_layers, routes_from
from bridge.config.into_tunnel import Peers, has_tunnel, peers_from, read_key, served
from bridge.config.load import Config, ConfigError
from bridge.control import explain
from bridge.control.capture_stream import capture
from bridge.control.client import ControlError, Document
from bridge.control.server import Client, ControlServer, Handler
from bridge.daemon import built
from bridge.daemon.hooks import Hook
from bridge.daemon.implementation import may_share, open_bursts, open_lanes, open_police, open_table, store_maker
from bridge.daemon.instance import AlreadyRunning, InstanceLock
from bridge.daemon.log import log_to_stderr
from bridge.daemon.memory import collect_rarely, keep_freed_memory
from bridge.daemon.notify import Watchdog, notify, reloading, watchdog_s
from bridge.loop.affinity import Affinity, first_choice, roam
from bridge.loop.loop import Loop, Signals
from bridge.loop.workers import Workers
from bridge.ports.base import Kind, Port, PortError, PortGone
from bridge.ports.bursts import Bursts
from bridge.ports.policing import Senders
from bridge.ports.udp.datagrams import DatagramSocket
from bridge.privsep.confinement import confine, keeper_for
from bridge.privsep.helper import Companion
from bridge.privsep.order import Order
from bridge.privsep.privileges import KEPT, User, drop_capabilities, forbid_core_dumps
from bridge.privsep.user import choose
from bridge.state.links import beside, open_ledger
from bridge.state.stamps import StampFile
from bridge.vpn.ciphers import Cores, open_cores
from bridge.vpn.lanes import PeerLanes
from bridge.vpn.port import Uplink
from bridge.vpn.resolver import Resolver
from bridge.walk.gateway import Gateway
from route.table import RouteTable, node_of
from tunnel.endpoint import Tunnel
from tunnel.primitives import wipe
from wire.drop import Drop
from wire.units import SECOND_NS

if TYPE_CHECKING:
    from bridge.ports.udp.lanes import Lanes  # it may not have been compiled

log = logging.getLogger(__name__)

OK, FAILED, BAD_CONFIGURATION = 0, 1, 4

_FORKED = frozenset({"alias.show", "arp.show", "flows", "route.show", "trace"})
"""Questions whose answer may be long, or that change what they look at: answered by a child, on a snapshot."""

_SWITCH_S = 0.0005
"""How long the loop may wait for the interpreter while a reload reads its files."""


class Refused(Exception):
    """The start failed; the message says why."""


def run(config_path: Path, socket_path: Path | None = None) -> int:
    """Be the gateway until a signal; the exit code. `socket_path` stands in for `control.socket`."""
    log_to_stderr()
    forbid_core_dumps()  # before the first key is read
    try:
        with ExitStack() as stack:
            companion = Companion()
            stack.callback(companion.close)
            try:
                setup = read_setup(config_path)
            except ConfigError as error:
                sys.stderr.write("".join(f"{fault}\n" for fault in error.faults))
                return BAD_CONFIGURATION
            keep_freed_memory()
            daemon = Daemon(config_path, setup, socket_path or setup.config.control.socket, companion, stack)
            collect_rarely()
            return daemon.serve()
    except (AlreadyRunning, PortError, Refused) as error:
        for line in str(error).splitlines():
            log.error("%s", line)
        return FAILED


class Setup(NamedTuple):
    """What the files say. `unreached`: nodes that nothing leads to; packets for them are answered with ICMP 3/1."""

    config: Config
    routes: RouteTable
    unreached: set[str]
    peers: Peers


def read_setup(path: Path) -> Setup:
    """Read the configuration and all its lists; `ConfigError` with every fault."""
    loaded = config.load(path, "run")
    routes = routes_from(loaded)
    nodes = {node for total in routes.summary() if (node := node_of(total["target"])) is not None}
    nodes |= {peer.fallback for peer in loaded.peer.values() if peer.fallback is not None}
    if loaded.vpn is not None and loaded.vpn.interface is not None and loaded.vpn.node is not None:
        nodes.discard(loaded.vpn.node)
    return Setup(loaded, routes, nodes.difference(served(loaded)), peers_from(loaded))


class Daemon:
    """Everything that one process has. What is opened is closed by `stack`, in reverse order."""

    def __init__(
        self, config_path: Path, setup: Setup, socket_path: Path, companion: Companion, stack: ExitStack
    ) -> None:
        loaded = setup.config
        self._path = config_path
        self._exit_code = OK
        self._is_stopping = False
        self._reload: _Reload | None = None
        self._wants_reload = False
        self._reload_clients: list[Client] = []  # who waits for the next one
        _warn(setup)
        if (slower := built.complaint()) is not None:
            log.warning("%s", slower)
        choice = choose(loaded.process.user)
        if choice.says:
            log.warning("the gateway %s", choice.says)
        made = _claim(socket_path, stack)
        self._rng = rng = random.SystemRandom()
        self._table = open_table(rng, 2 * loaded.alias.max_links)
        self.gateway = Gateway(loaded, setup.routes, rng, table=self._table, make_store=store_maker(rng, self._table))
        self.gateway.unreachable_nodes = setup.unreached
        self.loop = Loop(self.gateway, on_gone=self._port_gone)
        stack.callback(self.loop.close)
        self._keep_links(loaded, socket_path, stack)
        signals = Signals(
            self.loop, {signal.SIGHUP: self._hang_up, signal.SIGTERM: self._stop, signal.SIGINT: self._stop}
        )
        stack.callback(signals.close)
        self._cores: Cores | None = None
        self._lanes: Lanes | None = None
        self._stamps: StampFile | None = None
        self._resolver: Resolver | None = None
        self.uplink = self._open_uplink(setup, stack)
        order = Order(
            plans_from(loaded),
            keeper_for(loaded, socket_path, made) if choice.user is not None else None,
            loaded.process.confine,
        )
        self.ports, gateway_before = companion.make(order)
        for port in self.ports.values():
            stack.callback(port.close)
        companion.watch(self.loop, is_to_stay=order.leaves_warden)
        stack.callback(companion.unwatch)
        self._workers = self._attach_ports(loaded, stack)
        self._environment = _hook_environment(loaded, gateway_before)
        self._up, self._down = self._hooks(loaded, stack)
        self._serve_people(loaded, socket_path, stack)
        self._give_up_rights(choice.user, companion, stack)
        if loaded.process.confine:
            confine(loaded, socket_path, made)

    def _give_up_rights(self, user: User | None, companion: Companion, stack: ExitStack) -> None:
        if self._stamps is not None:
            if user is None:
                self._stamps.prepare()
            else:
                self._stamps.hold(user.uid, user.gid)
        if user is not None:
            files.ask(companion.open)
            stack.callback(files.ask, None)
        drop_capabilities(KEPT if user is None else 0, user)

    def _keep_links(self, loaded: Config, socket_path: Path, stack: ExitStack) -> None:
        """Take up the links that an earlier run left, and keep ours for the next."""
        path = loaded.alias.state_file
        if path == "":
            return
        gateway = self.gateway
        gateway.ledger = open_ledger(
            beside(socket_path) if path is None else path,
            gateway.aliases,
            gateway.interfaces,
            gateway.decision.openings,
            self.loop.clock(),
        )
        if gateway.ledger is not None:
            stack.callback(gateway.ledger.close)

    def _attach_ports(self, loaded: Config, stack: ExitStack) -> Workers | None:
        """Let the loop serve the ports, or threads in its place."""
        self.loop.repeat_with(self._open_bursts(self._lanes), self.gateway.fast)
        if loaded.fast_path.threads == 1 or not may_share(self._table):
            for port in self.ports.values():
                self.loop.attach(port)
            return None
        for port in self.ports.values():
            self.loop.attach_served(port)
        workers = Workers(self.loop, list(self.ports.values()), loaded.fast_path.threads, self._open_bursts)
        stack.callback(workers.close)
        return workers

    def _open_bursts(self, lanes: Lanes | None = None) -> Bursts:
        """What moves frames between all ports, for one thread. `lanes`: the tunnel's, which the loop alone may use."""
        bursts = open_bursts(self._table, lanes)
        for port in self.ports.values():
            police = None
            if self.gateway.config.fast_path.police:
                senders = Senders.STATIONS if port.name == "tap0" else Senders.ADDRESSES
                police = open_police(self._table, senders, port.link_bytes, self._rng)
                interface = self.gateway.interfaces[port.name]
                police.know(interface.network, None if interface.arp is None else interface.arp.words)
            bursts.attach(self.gateway.fast.number(port.name), port, police)
        self.gateway.fast.bursts.append(bursts)
        return bursts

    def _open_uplink(self, setup: Setup, stack: ExitStack) -> Uplink | None:
        """The tunnel, where one is configured."""
        loaded = setup.config
        if loaded.tunnel is None or not has_tunnel(loaded):
            return None
        assert loaded.tunnel.private_key_file is not None, "`run` demands a key file"
        try:
            inward = loaded.tun0.interface if loaded.tun0 is not None and loaded.tun0.netns is None else None
            datagrams = DatagramSocket(loaded.tunnel.listen_port, avoid=inward, count=self._count_outer)
        except OSError as error:
            raise Refused(f"UDP port {loaded.tunnel.listen_port} cannot be had: {error.strerror}") from error
        stack.callback(datagrams.close)
        self._cores = open_cores(loaded.tunnel.threads)
        stack.callback(self._cores.close)
        self._lanes = open_lanes(self._cores)
        self._stamps = kept = StampFile(loaded.tunnel.state_file)
        key = read_key(loaded.tunnel.private_key_file)
        try:
            tunnel = Tunnel(
                key,
                setup.peers.configs,
                self.loop.clock(),
                wall_ns=time.time_ns,
                random_bytes=os.urandom,
                mtu_bytes=loaded.vpn_mtu,
                cipher=self._cores,
                stamps=kept.read(),
                networks=setup.peers.networks,
                role=setup.peers.role,
            )
        except ValueError as error:
            raise Refused(f"the tunnel cannot be opened: {error}") from error
        finally:
            wipe(key)
        self._resolver = resolver = Resolver(self.loop, with_ipv6=datagrams.has_ipv6)
        stack.callback(resolver.close)
        uplink = Uplink(
            self.loop,
            self.gateway,
            tunnel,
            datagrams,
            setup.peers,
            keep=kept.write,
            resolve=resolver.resolve,
            unserved=setup.unreached,
            lanes=None
            if self._lanes is None
            else PeerLanes(self._lanes, datagrams, self.gateway.fast.number, self._cores.worked),
        )
        stack.callback(uplink.close)
        return uplink

    def _count_outer(self, reason: Drop, number: int) -> None:
        self.gateway.counters.lost("vpn", reason, number)

    def _hooks(self, loaded: Config, stack: ExitStack) -> tuple[Hook | None, Hook | None]:
        up, down = loaded.hooks.up, loaded.hooks.down
        try:
            waiting = Hook(self.loop, "down", down, self._environment, is_waiting=True) if down else None
            if waiting is not None:
                stack.callback(waiting.close)
            running = Hook(self.loop, "up", up, self._environment) if up else None
            if running is not None:
                stack.callback(running.close)
        except OSError as error:
            raise Refused(f"the hook {error.filename} cannot be started: {error.strerror}") from error
        return running, waiting

    def _serve_people(self, loaded: Config, socket_path: Path, stack: ExitStack) -> None:
        try:
            server = ControlServer(self.loop, socket_path, loaded.control.group, self._handlers())
        except (OSError, LookupError) as error:
            raise Refused(f"the control socket cannot be made: {error}") from error
        self._control = server
        stack.callback(server.close)
        if not loaded.control.metrics:
            return
        from bridge.control.metrics import GatewayCollector, MetricsServer  # noqa: PLC0415 - 40 ms that few starts need

        try:
            metrics = MetricsServer(self.loop, loaded.control.metrics, GatewayCollector(self.gateway, self._uptime_s))
        except OSError as error:
            raise Refused(f"metrics cannot be served on {loaded.control.metrics}: {error.strerror}") from error
        stack.callback(metrics.close)

    # Life

    def serve(self) -> int:
        """Forward until something stops us; the exit code."""
        if self._resolver is not None:
            self._resolver.begin()
        self.loop.carry_out(self.gateway.start(self.loop.clock()))
        if self.uplink is not None:
            self.uplink.begin()
        if self._workers is not None:
            self._workers.start()  # from here on the gateway is used under the loop's lock
        log.info("forwarding on %s", ", ".join(self.ports) or "no port")
        if self._up is not None:
            self._up.go(self._ready)
        else:
            self._ready()
        if self._workers is None:
            Affinity(self.loop, first_choice(has_lan=self.gateway.config.tap0 is not None)).hold()
        within_s = watchdog_s()
        if within_s is not None:
            Watchdog(self.loop, within_s, self._workers.stuck if self._workers is not None else lambda _within_s: "")
        self.loop.run()
        return self._exit_code

    def _ready(self) -> None:
        if not self._is_stopping:
            notify("READY=1", f"MAINPID={os.getpid()}", self._status())

    def _status(self) -> str:
        return f"STATUS=forwarding on {', '.join(self.ports) or 'no port'}"

    def _stop(self) -> None:
        """The first time: let `down` run while frames still pass. The second time: at once."""
        if self._is_stopping:
            self.loop.stop()
            return
        self._is_stopping = True
        log.info("stopping")
        notify("STOPPING=1", "STATUS=stopping")
        if self._down is not None:
            self._down.go(self.loop.stop)
        else:
            self.loop.stop()

    def _port_gone(self, port: Port, gone: PortGone) -> None:
        log.error("%s: %s; a gateway without it is of no use and stops", port.name, gone)
        self._exit_code = FAILED
        if not self._is_stopping:
            self._stop()

    def _uptime_s(self) -> float:
        return (self.loop.clock() - self.gateway.started_ns) / SECOND_NS

    # Reload

    def _hang_up(self) -> None:
        if self._reload is not None:
            self._wants_reload = True  # what changed meanwhile may have been read already: read once more
            return
        self._begin_reload([])

    def _begin_reload(self, clients: list[Client]) -> None:
        reloading()
        self._control.hold()
        self._reload = _Reload(self.loop, self._path, partial(self._end_reload, clients))

    def _end_reload(self, clients: list[Client], read: Setup | Exception) -> None:
        self._reload = None
        try:
            refusal = self._take(read)
        except Exception as error:  # whoever waits must hear of our bug, and the socket be open again
            log.error("a bug in taking a configuration over; restart the gateway", exc_info=error)
            refusal = ControlError(FAILED, "the gateway failed in taking the configuration over: restart it")
        notify("READY=1", self._status() if refusal is None else "STATUS=a reload was refused, forwarding as before")
        for client in clients:
            if refusal is None:
                client.answer({"version": explain.VERSION, "warnings": self.gateway.config.warnings})
            else:
                client.fail(refusal.code, refusal.message)
        self._control.release()  # who asked meanwhile gets an answer before the files are read once more
        if self._wants_reload or self._reload_clients:
            waiting, self._reload_clients, self._wants_reload = self._reload_clients, [], False
            self._begin_reload(waiting)

    def _take(self, read: Setup | Exception) -> ControlError | None:
        """Swap in what was read, or log why not and change nothing."""
        refusal = self._why_not(read)
        if refusal is not None:
            log.error("reload refused, nothing changed:")
            for line in refusal.message.splitlines():
                log.error("%s", line)
            if isinstance(read, Setup):
                read.peers.wipe()
            return refusal
        assert not isinstance(read, Exception)
        _warn(read)
        self.gateway.unreachable_nodes = read.unreached
        self.loop.carry_out(self.gateway.reconfigure(read.config, read.routes, self.loop.clock()))
        if self.uplink is not None:
            self.uplink.reconfigure(read.peers, read.unreached)
        log.info("reloaded")
        return None

    def _why_not(self, read: Setup | Exception) -> ControlError | None:
        if isinstance(read, ConfigError):
            return ControlError(BAD_CONFIGURATION, "\n".join(read.faults))
        if isinstance(read, Exception):
            log.error("a bug in reading the configuration", exc_info=read)
            return ControlError(FAILED, "the configuration could not be read; the gateway's log says more")
        refusal = _fixed_keys(self.gateway.config, read.config)
        if refusal is None and self.uplink is not None:
            fault = self.uplink.fault_of(read.peers)
            refusal = None if fault is None else ControlError(BAD_CONFIGURATION, fault)
        return refusal

    # What people ask

    def _handlers(self) -> dict[str, Handler]:
        handlers: dict[str, Handler] = {name: partial(self._explain, name) for name in explain.COMMANDS}
        handlers |= {name: partial(self._act, name) for name in explain.ACTIONS}
        handlers["reload"] = self._answer_reload
        handlers["capture"] = self._capture
        handlers["peers"] = self._answer_peers
        handlers["stats"] = self._answer_stats
        handlers["stop"] = self._answer_stop
        return handlers

    def _explain(self, name: str, arguments: Document, client: Client) -> None:
        question = partial(_asked, explain.COMMANDS[name], self.gateway, arguments, self.loop.clock())
        if name in _FORKED:
            client.answer_from_fork(question)
        else:
            client.answer(question())

    def _act(self, name: str, arguments: Document, client: Client) -> None:
        try:
            document, effects = explain.ACTIONS[name](self.gateway, arguments, self.loop.clock())
        except explain.Refused as refused:
            raise ControlError(refused.code, str(refused)) from refused
        self.loop.carry_out(effects)
        client.answer(document)

    def _capture(self, arguments: Document, client: Client) -> None:
        kinds: dict[str, Kind] = {name: port.kind for name, port in self.ports.items()}
        if self.uplink is not None:
            kinds |= dict.fromkeys(self.uplink.ports, "tun")
        named = arguments.get("port")
        if isinstance(named, str):  # the default node goes by two names
            arguments = {**arguments, "port": self.gateway.port_of(named)}
        capture(self.loop, kinds, arguments, client)

    def _answer_peers(self, _arguments: Document, client: Client) -> None:
        statuses = self.uplink.status() if self.uplink is not None else []
        client.answer(explain.peers(self.gateway.config, statuses, self.loop.clock()))

    def _answer_stats(self, arguments: Document, client: Client) -> None:
        document = explain.stats(self.gateway, arguments, self.loop.clock())
        document["fast_path"] |= explain.sealing(self._cores)
        document["fast_path"]["lanes"] = self.uplink.lanes if self.uplink is not None else 0
        client.answer(document)

    def _answer_reload(self, arguments: Document, client: Client) -> None:
        if arguments.get("dry_run"):
            client.answer_from_fork(self._moves)
        elif self._reload is not None:
            self._reload_clients.append(client)  # as `_hang_up`: what it asks for may have changed meanwhile
        else:
            self._begin_reload([client])

    def _moves(self) -> Document:
        """What a reload would change; runs in a child."""
        try:
            setup = read_setup(self._path)
        except ConfigError as error:
            raise ControlError(BAD_CONFIGURATION, "\n".join(error.faults)) from error
        refusal = self._why_not(setup)
        if refusal is not None:
            raise refusal
        if self.uplink is not None:
            announced = self.uplink.announced_under(setup.peers)
            setup.routes.announce(announced_layers(setup.config, announced))
        return explain.moves_to(self.gateway, setup.routes, self.loop.clock())

    def _answer_stop(self, _arguments: Document, client: Client) -> None:
        client.answer({"version": explain.VERSION, "pid": os.getpid()})
        if not self._is_stopping:
            self._stop()


class _Reload:
    """Reads configuration and lists in a thread; `done` gets them, or what went wrong, in the loop."""

    def __init__(self, loop: Loop, path: Path, done: Callable[[Setup | Exception], None]) -> None:
        self._loop = loop
        self._path = path
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
            self._read = read_setup(self._path)
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


def _warn(setup: Setup) -> None:
    for warning in setup.config.warnings:
        log.warning("%s", warning)
    if setup.unreached:
        nodes = ", ".join(sorted(setup.unreached))
        log.warning("nothing leads to %s: packets for it are answered with ICMP 3/1 (host unreachable)", nodes)


def _asked(command: explain.Command, gateway: Gateway, arguments: Document, now: int) -> Document:
    try:
        return command(gateway, arguments, now)
    except explain.Refused as refused:
        raise ControlError(refused.code, str(refused)) from refused


def _fixed_keys(running: Config, wanted: Config) -> ControlError | None:
    keys = list(changed_for_good(running, wanted))
    if not keys:
        return None
    return ControlError(FAILED, f"{', '.join(keys)}: cannot change while the gateway runs; restart it instead")


def _claim(socket_path: Path, stack: ExitStack) -> list[Path]:
    """Make the socket's folder, where it is missing, and hold its lock; the folders that were made."""
    made: list[Path] = []
    try:
        for folder in reversed(socket_path.parents):
            if not folder.is_dir():
                folder.mkdir(mode=0o755)
                stack.callback(_remove_if_empty, folder)
                made.append(folder)
        stack.callback(InstanceLock(socket_path).release)
    except OSError as error:
        raise Refused(f"the control socket cannot be made: {error.filename}: {error.strerror}") from error
    return made


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        log.debug("%s stays: it is in use", folder)


def _hook_environment(loaded: Config, gateway_before: str | None) -> dict[str, str]:
    """INTERFACE and ADDRESS (tun0's, else tap0's), PEER_IP (the default node's, or its relay's) and DEFAULT_GW (the
    kernel's next hop before our ports came up), each only where it is known."""
    port = loaded.tun0 or loaded.tap0
    environment = {}
    if port is not None:
        environment["INTERFACE"] = port.interface
        environment["ADDRESS"] = str(port.address.ip)
    peer = loaded.peer.get(loaded.default_node) if loaded.default_node else None
    while peer is not None and peer.via is not None:
        peer = loaded.peer[peer.via]
    if peer is not None and peer.endpoint:
        environment["PEER_IP"] = peer.endpoint.rpartition(":")[0].strip("[]")
    if gateway_before is not None:
        environment["DEFAULT_GW"] = gateway_before
    return environment
