"""The ISP router's DHCP server, as small as one can be: one network, an address for each MAC address that asks.

    python -m lab.leases FIRST/LENGTH ROUTER [--seconds N] [--mtu N] [--domain NAME] [--device eth0]

It gives out FIRST and the addresses behind it, answers every message by broadcast (a client that has no address yet
hears nothing else without raw sockets), says no to whoever asks for an address that is not his, and prints a line for
each message: `offer 192.168.1.2 to 02:...`. The lab's demo leases tap1's address from it; the tests of the client take
dnsmasq, kea, isc-dhcp-server and udhcpd, which others wrote.
"""

from __future__ import annotations

import argparse
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Interface

from dhcp import message
from dhcp import options as option
from dhcp.datagram import CLIENT_PORT, SERVER_PORT
from dhcp.message import BOOT_REPLY, BOOT_REQUEST, Kind, Message
from wire.drop import Drop
from wire.units import address_int, address_text, mac_text, prefix_mask

LEASE_S = 3600
_YIADDR_AT = 16
_LONGEST_BYTES = 2048


class LeaseServer:
    """Answers clients. `first`: the first address given out, with its prefix length; `router`: the server itself."""

    def __init__(self, first: IPv4Interface, router: int, seconds: int, mtu_bytes: int | None, domain: str) -> None:
        self._next = int(first.ip)
        self._length = first.network.prefixlen
        self._router = router
        self._seconds = seconds
        self._mtu_bytes = mtu_bytes
        self._domain = domain
        self._leases: dict[bytes, int] = {}

    def answer(self, payload: bytes) -> tuple[bytes, str] | None:
        """The reply to a client's message and what it says; None where none is due."""
        heard = message.parse(payload)
        if isinstance(heard, Drop) or heard.op != BOOT_REQUEST:
            return None
        if heard.kind == Kind.RELEASE:
            self._leases.pop(heard.chaddr, None)
            return None
        if heard.kind not in (Kind.DISCOVER, Kind.REQUEST) or heard.server not in (0, self._router):
            return None
        address = self._leases.get(heard.chaddr)
        if heard.kind == Kind.DISCOVER:
            if address is None:
                address = self._leases[heard.chaddr] = self._next
                self._next += 1
            return self._reply(Kind.OFFER, heard, address)
        asked = heard.ciaddr or option.number_in(heard.options, option.REQUESTED_ADDRESS)
        if address is None or asked != address:
            return self._reply(Kind.NAK, heard, 0)
        return self._reply(Kind.ACK, heard, address)

    def _reply(self, kind: Kind, heard: Message, address: int) -> tuple[bytes, str]:
        router = self._router.to_bytes(4, "big")
        options = [(option.SERVER_IDENTIFIER, router)]
        if kind is not Kind.NAK:
            options += [
                (option.LEASE_TIME, struct.pack("!I", self._seconds)),
                (option.SUBNET_MASK, struct.pack("!I", prefix_mask(self._length))),
                (option.ROUTER, router),
                (option.DNS_SERVERS, router),
            ]
            if self._mtu_bytes is not None:
                options.append((option.INTERFACE_MTU, struct.pack("!H", self._mtu_bytes)))
            if self._domain:
                options.append((option.DOMAIN_NAME, self._domain.encode("ascii")))
        reply = bytearray(message.write(kind, heard.xid, heard.chaddr, options))
        reply[0] = BOOT_REPLY
        reply[_YIADDR_AT : _YIADDR_AT + 4] = address.to_bytes(4, "big")
        return bytes(reply), f"{kind.name.lower()} {address_text(address)} to {mac_text(heard.chaddr)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until somebody ends the process; `ready` is printed first."""
    parser = argparse.ArgumentParser(description="the ISP router's DHCP server")
    parser.add_argument("first", type=IPv4Interface)
    parser.add_argument("router", type=address_int)
    parser.add_argument("--seconds", type=int, default=LEASE_S)
    parser.add_argument("--mtu", type=int)
    parser.add_argument("--domain", default="")
    parser.add_argument("--device", default="eth0")
    options = parser.parse_args(arguments)
    server = LeaseServer(options.first, options.router, options.seconds, options.mtu, options.domain)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, options.device.encode())
        channel.bind(("", SERVER_PORT))
        print("ready", flush=True)
        while True:
            answer = server.answer(channel.recv(_LONGEST_BYTES))
            if answer is not None:
                reply, says = answer
                channel.sendto(reply, ("255.255.255.255", CLIENT_PORT))
                print(says, flush=True)


if __name__ == "__main__":
    main()
