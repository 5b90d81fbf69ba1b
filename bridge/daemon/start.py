"""The start of a gateway, in numbered stages. `bridge.daemon.daemon.started` calls them in this order.

Before them, `run` forbids core dumps, starts the helper process and reads the configuration: nothing is touched until
all files have been read without an error.

1. `choose_user`: warnings for the operator, and the user that the gateway becomes.
2. `claim`: the control socket's folder and lock.
3. `core.make_core`: flow table, walk and loop, and the links of the run before.
4. `tunnel.open_tunnel`: the UDP socket, the key, the port `vpn`.
5. `make_devices`: the helper makes taps and tuns as root, and hands their descriptors over.
6. `join_ports`: the loop or threads serve the devices.
7. `start_hooks`: `up` and `down` are started, with the rights that the gateway still has.
8. `serve_people`: control socket and metrics.
9. `give_up_rights`: user, capabilities, Landlock, seccomp. Afterwards the gateway cannot open anything more.

Each stage says what it should do, and what it must not do because a later stage needs it. Everything opened is closed
by the `ExitStack` that a stage gets, in reverse order. A stage that fails raises `StartFailed`, `AlreadyRunning` or
`PortError` with a message for the operator.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bridge.config import files
from bridge.config.into_devices import bridges_of, plans_from
from bridge.control.answers.question import Subject
from bridge.control.children import Children
from bridge.control.connection import Handler
from bridge.control.server import ControlServer
from bridge.daemon import built
from bridge.daemon.core import Core
from bridge.daemon.hooks import Hook, hook_environment
from bridge.daemon.implementation import may_share, open_bursts, open_police
from bridge.daemon.instance import InstanceLock
from bridge.daemon.lease_hook import LeaseHook, environment_of
from bridge.daemon.setup import Setup, StartFailed, warn
from bridge.daemon.tunnel import OpenTunnel
from bridge.loop.loop import Loop
from bridge.loop.workers import Workers
from bridge.ports import packet_filters
from bridge.ports.bursts import Bursts
from bridge.ports.device import DevicePort
from bridge.ports.policing import Senders
from bridge.privsep.confinement import confine, root_duties_for
from bridge.privsep.helper import Helper, Made
from bridge.privsep.order import Order
from bridge.privsep.privileges import KEPT, User, drop_capabilities
from bridge.privsep.user import choose

if TYPE_CHECKING:
    from bridge.ports.udp.lanes import Lanes  # it may not have been compiled

log = logging.getLogger(__name__)


class SocketClaim(NamedTuple):
    """The control socket's place. `made`: the folders that were made for it, outermost first."""

    socket_path: Path
    made: list[Path]


# 1


def choose_user(setup: Setup) -> User | None:
    """Log warnings, and choose the user to become; None to stay the present one.

    Should: say everything that an operator may want to change, before anything can fail. Must not: change the user;
    devices and sockets still need the rights of the present one.
    """
    warn(setup)
    for complaint in packet_filters.complaints(bridges_of(setup.config)):
        log.warning("%s", complaint)
    if (slower := built.complaint()) is not None:
        log.warning("%s", slower)
    choice = choose(setup.config.process.user)
    if choice.says:
        log.warning("the gateway %s", choice.says)
    return choice.user


# 2


def claim(socket_path: Path, stack: ExitStack) -> SocketClaim:
    """Make the control socket's folder where it is missing, and lock the socket's name.

    Should: keep a second gateway away before it can touch devices of the first. Must not: touch the socket file; it
    belongs to whoever holds the lock.

    Raises `AlreadyRunning` where another gateway has the lock, `StartFailed` where folder or lock cannot be made.
    """
    made: list[Path] = []
    try:
        for folder in reversed(socket_path.parents):
            if not folder.is_dir():
                folder.mkdir(mode=0o755)
                stack.callback(_remove_if_empty, folder)
                made.append(folder)
        stack.callback(InstanceLock(socket_path).release)
    except OSError as error:
        raise StartFailed(f"the control socket cannot be made: {error.filename}: {error.strerror}") from error
    return SocketClaim(socket_path, made)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        log.debug("%s stays: it is in use", folder)


# 5


def make_devices(
    setup: Setup,
    claim: SocketClaim,
    user: User | None,
    helper: Helper,
    core: Core,
    tunnel: OpenTunnel | None,
    stack: ExitStack,
) -> Made:
    """Have the helper make the devices. Raises `PortError` with every obstacle, and then there are no devices.

    Should: tell the helper everything it has to do for us later, because it takes no second order. Must not: keep a
    device open after the stack has been closed; the kernel removes a device with its last descriptor.
    """
    order = Order(
        plans_from(setup.config),
        root_duties_for(setup.config, claim.socket_path, claim.made) if user is not None else None,
        setup.config.process.confine,
    )
    made = helper.make(order)
    for port in made.ports.values():
        stack.callback(port.close)
    helper.on_joined = lambda port: core.loop.carry_out(core.gateway.joined(port, core.loop.clock()))
    helper.watch(core.loop, is_to_stay=order.leaves_warden)
    if tunnel is not None and any(plan.is_default for plan in order.plans):
        tunnel.port.tell_endpoints(helper.lead)
    stack.callback(helper.unwatch)
    return made


# 6


def join_ports(
    setup: Setup, core: Core, tunnel: OpenTunnel | None, ports: Mapping[str, DevicePort], stack: ExitStack
) -> Workers | None:
    """Let the loop serve the devices, or threads in its place; the threads, which are not started yet.

    Should: let the flow table repeat what it can. Must not: start the threads; each would keep rights that stage 9
    gives up.
    """
    gateway, loop = core.gateway, core.loop
    loop.repeat_with(_bursts(core, ports, None if tunnel is None else tunnel.lanes), gateway.fast)
    threads = setup.config.fast_path.threads
    if threads == 1 or not may_share(core.table):
        for port in ports.values():
            loop.attach(port)
        return None
    for port in ports.values():
        loop.attach_served(port)
    workers = Workers(loop, list(ports.values()), threads, lambda: _bursts(core, ports, None))
    stack.callback(workers.close)
    return workers


def _bursts(core: Core, ports: Mapping[str, DevicePort], lanes: Lanes | None) -> Bursts:
    """The mover of frames between all ports, for one thread. `lanes`: the tunnel's; only the loop may use them."""
    gateway = core.gateway
    bursts = open_bursts(core.table, lanes)
    for port in ports.values():
        police = None
        if core.config.fast_path.police:
            senders = Senders.STATIONS if port.name == "tap0" else Senders.ADDRESSES
            police = open_police(core.table, senders, port.link_bytes, core.rng)
            if senders is Senders.STATIONS:  # tap0's table stays as long as we do; no other port has known stations
                lan = gateway.interfaces[port.name]
                police.know(lan.network, None if lan.neighbours is None else lan.neighbours.words)
        bursts.attach(gateway.fast.number(port.name), port, police)
    gateway.fast.bursts.append(bursts)
    return bursts


# 7


class Hooks(NamedTuple):
    """The operator's programs, each None where none is configured. `up` runs already; `down` waits for `Hook.go`."""

    up: Hook | None
    down: Hook | None


def start_hooks(setup: Setup, core: Core, gateway_before: str | None, stack: ExitStack) -> Hooks:
    """Start the hooks. `gateway_before`: the kernel's next hop before the devices came up.

    Should: start both now, because `down` needs rights that stage 9 gives up. Must not: wait for either; frames pass
    while they run. Raises `StartFailed` where a program cannot be executed.
    """
    loaded, hooks, loop = setup.config, setup.config.hooks, core.loop
    environment = hook_environment(loaded, gateway_before)
    try:
        down = Hook(loop, "down", hooks.down, environment, is_waiting=True) if hooks.down else None
        if down is not None:
            stack.callback(down.close)
        up = Hook(loop, "up", hooks.up, environment) if hooks.up else None
        if up is not None:
            stack.callback(up.close)
        if hooks.lease is not None:
            _start_lease_hook(core, hooks.lease, stack)
    except OSError as error:
        raise StartFailed(f"the hook {error.filename} cannot be started: {error.strerror}") from error
    return Hooks(up, down)


def _start_lease_hook(core: Core, program: Path, stack: ExitStack) -> None:
    hook = LeaseHook(program)
    stack.callback(hook.close)
    gateway = core.gateway

    def run(change: str) -> None:
        lease = gateway.leases.client.lease if gateway.leases is not None else None
        hook.run(environment_of(change, lease, gateway.interfaces["tap1"].mtu_bytes))

    core.loop.on_lease = run


# 8


def serve_people(
    setup: Setup,
    claim: SocketClaim,
    subject: Subject,
    loop: Loop,
    handlers: Mapping[str, Handler],
    children: Children,
    stack: ExitStack,
) -> None:
    """Open the control socket, and the page of metrics where one is configured.

    Should: be the last stage that opens something, so that a question meets a whole gateway. Must not: answer yet; the
    loop does not turn before stage 9 is done. Raises `StartFailed` where a socket cannot be made, or where there is no
    such group.
    """
    control = setup.config.control
    try:
        server = ControlServer(loop, claim.socket_path, control.group, handlers, children)
    except (OSError, LookupError) as error:
        raise StartFailed(f"the control socket cannot be made: {error}") from error
    stack.callback(server.close)
    if not control.metrics:
        return
    from bridge.control.metrics import GatewayCollector, MetricsServer  # noqa: PLC0415 - 40 ms that few starts need

    try:
        metrics = MetricsServer(loop, control.metrics, GatewayCollector(subject, loop.clock))
    except OSError as error:
        raise StartFailed(f"metrics cannot be served on {control.metrics}: {error.strerror}") from error
    stack.callback(metrics.close)


# 9


def give_up_rights(
    setup: Setup, claim: SocketClaim, user: User | None, tunnel: OpenTunnel | None, helper: Helper, stack: ExitStack
) -> None:
    """Become the user, give capabilities up, and confine the process, for good.

    Should: leave the gateway able to forward, answer, reload and write its state. Must not: run with a second thread,
    which would keep its rights.
    """
    if tunnel is not None:
        if user is None:
            tunnel.stamps.prepare()
        else:
            tunnel.stamps.hold(user.uid, user.gid)
    if user is not None:
        files.ask(helper.open)
        stack.callback(files.ask, None)
    drop_capabilities(KEPT if user is None else 0, user)
    if setup.config.process.confine:
        confine(setup.config, claim.socket_path, claim.made)
