"""The lab's own DHCP server: what it answers."""

from __future__ import annotations

from ipaddress import IPv4Interface

import pytest

from dhcp import message
from dhcp import options as option
from dhcp.message import Kind, Message
from lab.leases import LeaseServer
from wire.units import address_int

MAC, OTHER = bytes.fromhex("020000000102"), bytes.fromhex("020000000103")
ROUTER = address_int("192.168.1.1")
FIRST = address_int("192.168.1.2")


@pytest.fixture
def server() -> LeaseServer:
    return LeaseServer(IPv4Interface("192.168.1.2/24"), ROUTER, 600, 1400, "isp.example")


def said(server: LeaseServer, kind: Kind, mac: bytes = MAC, asked: int = 0, ciaddr: int = 0) -> Message | None:
    options = [(option.REQUESTED_ADDRESS, asked.to_bytes(4, "big"))] if asked else []
    answer = server.answer(message.write(kind, 7, mac, options, ciaddr=ciaddr))
    if answer is None:
        return None
    read = message.parse(answer[0])
    assert isinstance(read, Message)
    assert (read.op, read.xid, read.chaddr, read.server) == (2, 7, mac, ROUTER)
    return read


def test_each_client_gets_an_address_of_its_own_and_keeps_it(server: LeaseServer) -> None:
    for _ in range(2):
        for mac, address in ((MAC, FIRST), (OTHER, FIRST + 1)):
            offer = said(server, Kind.DISCOVER, mac)
            assert offer is not None
            assert (offer.kind, offer.yiaddr) == (Kind.OFFER, address)
            ack = said(server, Kind.REQUEST, mac, asked=address)
            assert ack is not None
            assert (ack.kind, ack.yiaddr) == (Kind.ACK, address)
            assert option.number_in(ack.options, option.LEASE_TIME) == 600
            assert option.number_in(ack.options, option.INTERFACE_MTU, 2) == 1400
            assert option.text_in(ack.options, option.DOMAIN_NAME) == "isp.example"


def test_a_renewal_names_its_address_in_ciaddr(server: LeaseServer) -> None:
    said(server, Kind.DISCOVER)
    ack = said(server, Kind.REQUEST, ciaddr=FIRST)
    assert ack is not None
    assert ack.kind == Kind.ACK


def test_who_asks_for_another_address_is_refused_and_a_released_one_is_forgotten(server: LeaseServer) -> None:
    refused = said(server, Kind.REQUEST, asked=FIRST)
    assert refused is not None
    assert refused.kind == Kind.NAK
    said(server, Kind.DISCOVER)
    assert said(server, Kind.RELEASE, ciaddr=FIRST) is None
    refused = said(server, Kind.REQUEST, asked=FIRST)
    assert refused is not None
    assert refused.kind == Kind.NAK


def test_other_messages_are_not_answered(server: LeaseServer) -> None:
    assert server.answer(b"") is None
    assert said(server, Kind.INFORM) is None
    assert said(server, Kind.DECLINE, asked=FIRST) is None
