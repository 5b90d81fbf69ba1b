"""`bridgectl dhcp`: the lease of tap1."""

from __future__ import annotations

from bridge.control.answers.question import Arguments, ChangeAnswer, Subject, change, document, question, seconds
from bridge.control.protocol import FAILED, Document, QuestionRefused
from bridge.walk.gateway import Gateway
from wire.units import address_text

_OF_A_LEASE = (
    *("address", "prefix_length", "gateway", "server", "dns", "domain", "mtu"),
    *("obtained_s", "renew_s", "rebind_s", "expires_s"),
)


@question("dhcp.show")
def show(subject: Subject, arguments: Arguments, now: int) -> Document:
    """The lease, null where tap1's address is static. `answers` counts the answers of servers that were believed."""
    return _described(subject.gateway, now)


@change("dhcp.renew")
def renew(subject: Subject, arguments: Arguments, now: int) -> ChangeAnswer:
    """Ask a server now. The document is that of before: the next answer makes `answers` one more, and `bridgectl dhcp
    renew` asks `dhcp.show` until it does."""
    gateway = _leased(subject)
    return ChangeAnswer(_described(gateway, now), gateway.renew_lease(now))


@change("dhcp.release")
def release(subject: Subject, arguments: Arguments, now: int) -> ChangeAnswer:
    """Give the address back."""
    gateway = _leased(subject)
    effects = gateway.release_lease(now)
    return ChangeAnswer(_described(gateway, now), effects)


def _leased(subject: Subject) -> Gateway:
    if subject.gateway.leases is None:
        raise QuestionRefused(FAILED, 'there is no lease: tap1.address is not "dhcp"')
    return subject.gateway


def _described(gateway: Gateway, now: int) -> Document:
    """Without a lease only port and state are known, everything else is null."""
    service = gateway.leases
    if service is None:
        return document(lease=None)
    client, lease = service.client, service.client.lease
    found: Document = {"port": "tap1", "state": str(client.state), **dict.fromkeys(_OF_A_LEASE)}
    if lease is not None:
        found |= {
            "address": address_text(lease.address),
            "prefix_length": lease.prefix_length,
            "gateway": address_text(lease.gateway) if lease.gateway else None,
            "server": address_text(lease.server),
            "dns": [address_text(server) for server in lease.dns],
            "domain": lease.domain,
            "mtu": gateway.interfaces["tap1"].mtu_bytes,
            "obtained_s": seconds(now - client.obtained_ns),
            "renew_s": _ahead(client.renew_ns, now),
            "rebind_s": _ahead(client.rebind_ns, now),
            "expires_s": _ahead(client.expiry_ns, now),
        }
    return document(lease={**found, "answers": client.answers})


def _ahead(due_ns: int | None, now: int) -> float | None:
    return None if due_ns is None else seconds(due_ns - now)
