"""The messages that a client sends, whole. RFC 2131 4.3.2, table 4 (where the address of a REQUEST stands), row D4;
4.4.1, table 5 (which options each message has).

    message                     ciaddr    option 50   option 54   sent to
    `discover`                  0         -           -           all, from 0.0.0.0
    `request_offer`             0         address     server      all, from 0.0.0.0
    `request_known`             0         address     -           all, from 0.0.0.0
    `renewal`                   address   -           -           the server
    `rebinding`                 address   -           -           all
    `decline`                   0         address     server      all, from 0.0.0.0
    `release`                   address   -           server      the server

Messages to all are Ethernet frames, those to one server are IPv4 packets. `xid`: of the exchange; `secs`: since it
began.
"""

from __future__ import annotations

from typing import Final

from dhcp import datagram, message
from dhcp import options as option
from dhcp.lease import Lease
from dhcp.message import Kind
from dhcp.settings import ClientSettings

_LEAST_SIZE_BYTES: Final = 576
_MOST_SIZE_BYTES: Final = 1500
_HEADERS_BYTES: Final = 28  # IPv4 and UDP

_Options = tuple[tuple[int, bytes], ...]


def discover(own: ClientSettings, xid: int, secs: int) -> bytes:
    """The search for servers."""
    return datagram.broadcast(own.mac, 0, _message(Kind.DISCOVER, own, xid, _presented(own), secs=secs))


def request_offer(own: ClientSettings, xid: int, secs: int, offer: Lease) -> bytes:
    """SELECTING: the wish for one offer, which tells the other servers that theirs are not wanted."""
    options = (_requested(offer.address), _server(offer.server), *_presented(own))
    return datagram.broadcast(own.mac, 0, _message(Kind.REQUEST, own, xid, options, secs=secs))


def request_known(own: ClientSettings, xid: int, secs: int, lease: Lease) -> bytes:
    """INIT-REBOOT: the question whether an address of before still holds."""
    options = (_requested(lease.address), *_presented(own))
    return datagram.broadcast(own.mac, 0, _message(Kind.REQUEST, own, xid, options, secs=secs))


def renewal(own: ClientSettings, xid: int, secs: int, lease: Lease) -> bytes:
    """RENEWING: to the server of the lease alone."""
    payload = _message(Kind.REQUEST, own, xid, _presented(own), secs=secs, ciaddr=lease.address)
    return datagram.unicast(lease.address, lease.server, payload)


def rebinding(own: ClientSettings, xid: int, secs: int, lease: Lease) -> bytes:
    """REBINDING: to any server."""
    payload = _message(Kind.REQUEST, own, xid, _presented(own), secs=secs, ciaddr=lease.address)
    return datagram.broadcast(own.mac, lease.address, payload)


def decline(own: ClientSettings, xid: int, address: int, server: int) -> bytes:
    """An address is given back because it cannot be used."""
    return datagram.broadcast(own.mac, 0, _message(Kind.DECLINE, own, xid, (_requested(address), _server(server))))


def release(own: ClientSettings, xid: int, lease: Lease) -> bytes:
    """An address is given back because it is not needed."""
    payload = _message(Kind.RELEASE, own, xid, (_server(lease.server),), ciaddr=lease.address)
    return datagram.unicast(lease.address, lease.server, payload)


def _message(kind: Kind, own: ClientSettings, xid: int, options: _Options, *, secs: int = 0, ciaddr: int = 0) -> bytes:
    """RFC 6842 3: a client identifier stands in every message, or in none."""
    if own.client_id:
        options = (*options, (option.CLIENT_IDENTIFIER, own.client_id))
    return message.write(kind, xid, own.mac, options, secs=secs, ciaddr=ciaddr)


def _presented(own: ClientSettings) -> _Options:
    """The options by which the client presents itself. Option 57 asks for messages that need no fragments."""
    size = max(_LEAST_SIZE_BYTES, min(own.limits.mtu_bytes, _MOST_SIZE_BYTES) - _HEADERS_BYTES)
    named = ((option.HOST_NAME, own.hostname), (option.VENDOR_CLASS, own.vendor_class))
    return (
        (option.MAXIMUM_SIZE, size.to_bytes(2, "big")),
        (option.PARAMETER_LIST, option.ASKED),
        *((code, value) for code, value in named if value),
        *own.options,
    )


def _requested(address: int) -> tuple[int, bytes]:
    return option.REQUESTED_ADDRESS, address.to_bytes(4, "big")


def _server(server: int) -> tuple[int, bytes]:
    return option.SERVER_IDENTIFIER, server.to_bytes(4, "big")
