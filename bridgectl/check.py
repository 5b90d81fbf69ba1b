"""`bridgectl check`: the errors of a configuration, or a list of everything that it would set up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from bridgectl.options import Options, shared
from bridgectl.output import Columns, Document, Shown, present


@click.command()
@shared(watch=True)
def command(options: Options) -> None:
    """Validate the configuration, print what it would set up.

    Nothing is touched. An invalid configuration gives exit code 4 and all its errors, one a line, with file and line.
    """
    present(options, lambda: _checked(options), _plan)


def _checked(options: Options) -> Document:
    from bridgectl.offline import load_as_started, load_routes  # noqa: PLC0415 - pydantic, not for `bridgectl --help`

    config = load_as_started(options.config_path, "check", options.socket)
    routes = load_routes(config)
    warnings = [*config.warnings, *_about_this_machine(config)]
    for warning in warnings:
        click.echo(warning, err=True)
    return {
        "version": 1,
        "config": str(options.config_path),
        "ports": [
            *(_port(config, name) for name in ("tap0", "tap1", "tun0") if getattr(config, name) is not None),
            *([_tunnel(config)] if config.has_vpn else []),
        ],
        "peers": [_peer(name, peer) for name, peer in config.peer.items()],
        "announced": [str(prefix) for prefix in config.announced],
        "forwards": [_forward(forward) for forward in config.alias.forward],
        "targets": list(routes.summary()),
        "socket": str(options.socket or config.control.socket),
        "warnings": warnings,
    }


def _about_this_machine(config: Any) -> Iterator[str]:
    """Warnings about rules of this machine that eat frames; no configuration can allow for them."""
    from bridge.config.into_devices import bridges_of  # noqa: PLC0415 - with the configuration only
    from bridge.ports.packet_filters import complaints  # noqa: PLC0415 - likewise

    return complaints(bridges_of(config))


def _port(config: Any, name: str) -> Document:
    port = getattr(config, name)
    ethernet = name == "tap0" or (name == "tap1" and port.kind == "tap")
    return {
        "port": name,
        "kind": "tap" if ethernet else "tun",
        "interface": port.interface,
        "address": "dhcp" if port.address is None else str(port.address),
        "mac": port.mac.hex(":") if ethernet else None,
        "mtu": config.tun0_mtu if name == "tun0" else port.mtu,
        "next_hop": _text(getattr(port, "gateway", None)),
        "bridge": getattr(port, "bridge", None),
        "netns": port.netns,
    }


def _tunnel(config: Any) -> Document:
    vpn = config.vpn  # an exit node has none
    return {
        "port": "vpn",
        "kind": "inside of the tunnel",
        "interface": vpn.interface if vpn else None,
        "address": _text(vpn.address) if vpn else None,
        "mac": None,
        "mtu": config.vpn_mtu,
        "next_hop": config.default_node,
        "bridge": None,
        "netns": vpn.netns if vpn else None,
    }


def _peer(name: str, peer: Any) -> Document:
    return {
        "peer": name,
        "endpoint": peer.endpoint,
        "via": peer.via,
        "allowed_ips": [str(prefix) for prefix in peer.allowed_ips],
        "accept": [str(prefix) for prefix in peer.accept],
        "fallback": peer.fallback,
        "exit": peer.exit,
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _forward(forward: Any) -> Document:
    from wire.units import address_text  # noqa: PLC0415 - with the configuration only

    return {
        "on": forward.on,
        "protocol": forward.protocol,
        "outside_port": forward.outside_port,
        "inside": f"{address_text(forward.inside.address)}:{forward.inside.port}",
    }


def _plan(document: Document) -> Iterator[Shown]:
    yield f"{document['config']} is valid. It would set up:"
    keys = ("port", "kind", "interface", "address", "mac", "mtu", "next_hop", "bridge", "netns")
    headings = [f">{key.upper()}" if key == "mtu" else key.replace("_", " ").upper() for key in keys]
    yield Columns(headings, [[port[key] for key in keys] for port in document["ports"]])
    if document["peers"]:
        yield Columns(
            ("PEER", "ENDPOINT", "VIA", "ALLOWED IPS", "ACCEPTS", "FALLBACK", "LEAVES BY"),
            [
                (
                    peer["peer"],
                    peer["endpoint"],
                    peer["via"],
                    ", ".join(peer["allowed_ips"]) or None,
                    ", ".join(peer["accept"]) or None,
                    peer["fallback"],
                    "tap1" if peer["exit"] else None,
                )
                for peer in document["peers"]
            ],
        )
    if document["announced"]:
        yield f"announced to peers: {', '.join(document['announced'])}"
    if document["forwards"]:
        yield Columns(
            ("FORWARD ON", "PROTO", ">OUTSIDE PORT", "INSIDE"),
            [
                (forward["on"], forward["protocol"], forward["outside_port"], forward["inside"])
                for forward in document["forwards"]
            ],
        )
    yield Columns(
        ("TARGET", ">PREFIXES", ">ADDRESSES"),
        [(row["target"], row["prefixes"], row["addresses"]) for row in document["targets"]],
    )
    yield f"control socket: {document['socket']}"
