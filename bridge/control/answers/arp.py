"""`bridgectl arp`: the ARP tables of the taps."""

from __future__ import annotations

from arp.effects import Entry
from bridge.control.answers.question import Arguments, ChangeAnswer, Subject, address_of, change, document, question
from bridge.control.protocol import FAILED, USAGE, Document, QuestionRefused
from bridge.walk.gateway import Gateway
from wire.units import address_text, mac_bytes, mac_text

# Questions


@question("arp.show", in_fork=True)  # a table has a slot for each address of the subnet
def show(subject: Subject, arguments: Arguments, now: int) -> Document:
    """The tables of all taps, or of `port`."""
    gateway = subject.gateway
    return document(tables=[_table(gateway, port, now) for port in _ports(gateway, arguments)])


@question("arp.entry")
def entry(subject: Subject, arguments: Arguments, now: int) -> Document:
    """The entry of `ip`, null where it has none. `answered` is the outcome of a probe: true, false, or null while the
    probe waits for an answer. `bridgectl arp probe` asks this until it knows the outcome."""
    port, address = _neighbour(subject.gateway, arguments)
    return _entry_document(subject.gateway, port, address, now)


# Changes


@change("arp.flush")
def flush(subject: Subject, arguments: Arguments, now: int) -> ChangeAnswer:
    """Forget the learned entries, on all taps or on `port`. Static entries stay."""
    gateway = subject.gateway
    flushed = sum(gateway.arp[port].flush() for port in _ports(gateway, arguments))
    return ChangeAnswer(document(flushed=flushed), [])


@change("arp.add")
def add(subject: Subject, arguments: Arguments, now: int) -> ChangeAnswer:
    """Add a static entry: `ip`, `mac`, and `port` where the address alone does not tell. The effects are the frames
    that waited for the entry. Raises `QuestionRefused` for an address outside the subnet and for a bad MAC address."""
    port, address = _neighbour(subject.gateway, arguments)
    try:
        mac = mac_bytes(str(arguments.get("mac", "")))
        effects = subject.gateway.add_neighbour(port, address, mac, now)
    except ValueError as error:
        raise QuestionRefused(USAGE, str(error)) from error
    return ChangeAnswer(document(port=port, ip=address_text(address), mac=mac_text(mac)), effects)


@change("arp.del")
def delete(subject: Subject, arguments: Arguments, now: int) -> ChangeAnswer:
    """Forget the entry of `ip`, static or learned. Raises `QuestionRefused` where there is none."""
    port, address = _neighbour(subject.gateway, arguments)
    if not subject.gateway.arp[port].delete(address):
        raise QuestionRefused(FAILED, f"{address_text(address)} has no entry on {port}")
    return ChangeAnswer(document(port=port, ip=address_text(address)), [])


@change("arp.probe")
def probe(subject: Subject, arguments: Arguments, now: int) -> ChangeAnswer:
    """Ask the network for `ip` now. The document is that of `entry`."""
    port, address = _neighbour(subject.gateway, arguments)
    effects = subject.gateway.probe(port, address, now)
    return ChangeAnswer(_entry_document(subject.gateway, port, address, now), effects)


def _table(gateway: Gateway, port: str, now: int) -> Document:
    table = gateway.arp[port]
    return {
        "port": port,
        "subnet": _subnet(gateway, port),
        "slots": table.slots,
        "used": table.used,
        "entries": [_entry(entry) for entry in table.entries(now)],
    }


def _entry(entry: Entry) -> Document:
    return {
        "ip": address_text(entry.ip),
        "mac": mac_text(entry.mac) if entry.mac is not None else None,
        "state": entry.state,
        "age_s": round(entry.age_s, 3),
        "static": entry.static,
    }


def _entry_document(gateway: Gateway, port: str, address: int, now: int) -> Document:
    table = gateway.arp[port]
    found = next((_entry(entry) for entry in table.entries(now) if entry.ip == address), None)
    return document(port=port, entry=found, answered=table.answered(address, now))


def _ports(gateway: Gateway, arguments: Arguments) -> list[str]:
    """The taps that are meant: `port`, or all."""
    port = arguments.get("port")
    if port is None:
        return list(gateway.arp)
    if not isinstance(port, str) or port not in gateway.arp:
        known = ", ".join(gateway.arp) or "there is none"
        raise QuestionRefused(USAGE, f"{port!r} is no port with an ARP table: {known}")
    return [port]


def _neighbour(gateway: Gateway, arguments: Arguments) -> tuple[str, int]:
    """The port and the address that are meant: the address lies in the port's subnet and is not our own."""
    address = address_of(arguments)
    ports = _ports(gateway, arguments)
    for port in ports:
        if gateway.arp[port].slot_of(address) is None:
            continue
        if not gateway.arp[port].is_resolvable(address):
            subnet = _subnet(gateway, port)
            says = f"{address_text(address)} is our own address or the edge of {port}'s subnet {subnet}"
            raise QuestionRefused(USAGE, says)
        return port, address
    subnets = ", ".join(f"{subnet} on {port}" for port in ports if (subnet := _subnet(gateway, port)) is not None)
    raise QuestionRefused(USAGE, f"{address_text(address)} is outside the subnet: {subnets or 'no port has one'}")


def _subnet(gateway: Gateway, port: str) -> str | None:
    """`192.168.200.0/24`; None while the port has no address."""
    interface = gateway.interfaces[port]
    return f"{address_text(interface.network)}/{interface.mask.bit_count()}" if interface.network else None
