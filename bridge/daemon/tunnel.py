"""Stage 4 of a start: the UDP socket, the key, and the port `vpn`."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from bridge.config.into_tunnel import has_tunnel, read_key
from bridge.config.load import Config
from bridge.config.model import TunnelTable
from bridge.daemon.core import Core
from bridge.daemon.implementation import open_lanes
from bridge.daemon.setup import Setup, StartFailed
from bridge.ports.udp.datagrams import DatagramSocket
from bridge.ports.udp.segmentation import SWITCHED_OFF, Segmentation, prove
from bridge.state.stamps import StampFile
from bridge.vpn.ciphers import Cores, open_cores
from bridge.vpn.lanes import PeerLanes
from bridge.vpn.port import VpnPort
from bridge.vpn.resolver import HostNames
from bridge.walk.gateway import Gateway
from tunnel.endpoint import Tunnel
from tunnel.primitives import wipe
from wire.drop import Drop

if TYPE_CHECKING:
    from bridge.ports.udp.lanes import Lanes  # it may not have been compiled

log = logging.getLogger(__name__)


class OpenTunnel(NamedTuple):
    """The tunnel with all that belongs to it. `lanes`: None where nothing was compiled."""

    port: VpnPort
    cores: Cores
    lanes: Lanes | None
    stamps: StampFile
    resolver: HostNames
    segmentation: Segmentation


def open_tunnel(setup: Setup, core: Core, stack: ExitStack) -> OpenTunnel | None:
    """Open the tunnel, where one is configured. `StartFailed` where its port or its keys cannot be had.

    Should: hold the UDP port before devices exist, so that a port in use leaves nothing behind; wipe the key as soon as
    the tunnel has it. Must not: send anything.
    """
    tunnel = setup.config.tunnel
    if tunnel is None or not has_tunnel(setup.config):
        return None
    loop, gateway = core.loop, core.gateway
    datagrams = _udp_socket(setup.config, tunnel, gateway)
    stack.callback(datagrams.close)
    cores = open_cores(tunnel.threads)
    stack.callback(cores.close)
    lanes = open_lanes(cores)
    stamps = StampFile(tunnel.state_file)
    endpoint = _endpoint(setup, loop.clock(), cores, stamps)
    resolver = HostNames(loop, with_ipv6=datagrams.has_ipv6)
    stack.callback(resolver.close)
    try:
        port = VpnPort(
            loop,
            gateway,
            endpoint,
            datagrams,
            setup.peers,
            keep=stamps.write,
            resolve=resolver.resolve,
            unserved=setup.unreached,
            lanes=None if lanes is None else PeerLanes(lanes, datagrams, gateway.fast.number, cores.worked),
        )
    except ValueError as error:
        raise StartFailed(f"the tunnel cannot be opened: {error}") from error
    stack.callback(port.close)
    return OpenTunnel(port, cores, lanes, stamps, resolver, datagrams.segmentation)


def _udp_socket(config: Config, tunnel: TunnelTable, gateway: Gateway) -> DatagramSocket:
    """The socket of `tunnel.listen_port`. It avoids tun0: a sealed datagram must not go into the tunnel again."""
    inward = config.tun0.interface if config.tun0 is not None and config.tun0.netns is None else None

    def count(reason: Drop, number: int) -> None:
        gateway.counters.lost("vpn", reason, number)

    is_off = tunnel.segmentation == "off"
    try:
        opened = DatagramSocket(
            tunnel.listen_port, avoid=inward, count=count, prove=(lambda family: SWITCHED_OFF) if is_off else prove
        )
    except OSError as error:
        raise StartFailed(f"UDP port {tunnel.listen_port} cannot be had: {error.strerror}") from error
    if opened.segmentation.reason and not is_off:
        log.warning("sealed packets pass the kernel one by one, which is slower: %s", opened.segmentation.reason)
    return opened


def _endpoint(setup: Setup, now: int, cores: Cores, stamps: StampFile) -> Tunnel:
    settings = setup.config.tunnel
    assert settings is not None
    assert settings.private_key_file is not None, "`run` demands a key file"
    key = read_key(settings.private_key_file)
    try:
        return Tunnel(
            key,
            (),  # `VpnPort` hands the peers over
            now,
            wall_ns=time.time_ns,
            random_bytes=os.urandom,
            mtu_bytes=setup.config.vpn_mtu,
            cipher=cores,
            stamps=stamps.read(),
        )
    except ValueError as error:
        raise StartFailed(f"the tunnel cannot be opened: {error}") from error
    finally:
        wipe(key)
