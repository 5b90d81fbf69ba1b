"""D17: the client against servers that others wrote. Their clock is the machine's; the client's runs to its next timer
whenever nobody has anything to say, so that hours of a lease take seconds."""

from __future__ import annotations

import random
import select
import socket
import time
from collections.abc import Iterator

import pytest

from arp import packet as arp
from bridge.ports.namespace import entered
from dhcp.client import Client
from dhcp.effects import Assume, Broadcast, ClientEffect, LeaseChanged, Submit, Vacate
from dhcp.lease import Lease
from dhcp.settings import ClientSettings
from lab.process import CommandFailed
from lab.topology import Lab
from tests.lab.dhcp_servers import FIRST, LAST, ROUTER, SERVERS, Server, needing
from wire import ipv4
from wire.ethernet import BROADCAST, IPV4_TYPE
from wire.ipv4 import Packet
from wire.units import SECOND_NS, address_int, address_text

pytestmark = pytest.mark.lab

MAC = bytes.fromhex("020000000150")
SECONDS = 120
ANSWER_S = 8.0  # udhcpd looks for two seconds whether somebody has the address


class Host:
    """A client on a raw socket, with a clock of its own. `told`: its events."""

    def __init__(self, channel: socket.socket, seed: int) -> None:
        self.client = Client(ClientSettings(MAC), random.Random(seed), random.Random(seed + 1))
        self.now = 1000 * SECOND_NS
        self.lease: Lease | None = None
        self.told: list[str] = []
        self._channel = channel
        self._server_mac = BROADCAST

    def take(self, effects: list[ClientEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Broadcast):
                self._channel.send(effect.frame)
            elif isinstance(effect, Submit):
                self._channel.send(self._server_mac + MAC + IPV4_TYPE + effect.packet)
            elif isinstance(effect, Assume):
                self.lease = effect.lease
            elif isinstance(effect, Vacate):
                self.lease = None
            elif isinstance(effect, LeaseChanged):
                self.told.append(effect.change)

    def hear(self, until: str, within_s: float = ANSWER_S) -> None:
        """Take in what comes until an event of that name has been told."""
        deadline = time.monotonic() + within_s
        while until not in self.told:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self._channel], [], [], left_s)[0]:
                raise CommandFailed(
                    f"no {until} within {within_s:g} s, only {self.told}; the client is {self.client.state}"
                )
            frame = self._channel.recv(65536)
            self._answer_arp(frame)
            packet = ipv4.parse(frame, 14) if frame[12:14] == IPV4_TYPE and frame[6:12] != MAC else None
            if not isinstance(packet, Packet) or ipv4.read_transport(packet) or packet.destination_port != 68:
                continue
            self._server_mac = frame[6:12]
            self.take(self.client.receive(packet, self.now))

    def _answer_arp(self, frame: bytes) -> None:
        """As the port does that has the address: a renewal is answered by unicast."""
        asked = arp.parse(frame)
        if isinstance(asked, arp.ArpPacket) and self.lease is not None and asked.target == self.lease.address:
            self._channel.send(arp.reply(MAC, self.lease.address, asked))

    def run_to(self, state: str) -> None:
        """Let the clock run, from timer to timer, until the client is in that state."""
        while self.client.state != state:
            due = self.client.next_deadline()
            assert due is not None, f"{self.client.state} waits for nothing"
            self.now = max(self.now, due)
            self.take(self.client.tick(self.now))

    def bound(self) -> Lease:
        """From the start to the lease; a server that is still starting is asked again."""
        self.take(self.client.start(self.now))
        for _ in range(8):
            try:
                self.hear("bound", 3.0)
                break
            except CommandFailed:
                self.take(self.client.renew(self.now))
        assert self.lease is not None, "nobody grants a lease"
        self.told.clear()
        return self.lease


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, bare_lab: Lab) -> Iterator[Server]:
    name: str = request.param
    needing(name)
    found = Server(name, bare_lab.namespaces["isp"], bare_lab.folder)
    yield found
    found.stop()
    found.forget()
    bare_lab.namespaces["isp"].ip("neigh flush all")  # the next host at that address is another one


@pytest.fixture
def host(bare_lab: Lab) -> Iterator[Host]:
    gw = bare_lab.namespaces["gw"]
    bare_lab.namespaces["isp"].switch_offloads_off("eth0")  # a raw socket does not hear which checksums are partial
    with entered("gw"):
        channel = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    channel.bind(("br1", 0))
    gw.ip("link set br1 promisc on")
    yield Host(channel, seed=1)
    channel.close()


def test_d17_lease_renewal_rebinding_and_expiry(server: Server, host: Host) -> None:
    server.start(seconds=SECONDS)
    lease = host.bound()
    assert address_int(FIRST) <= lease.address <= address_int(LAST)
    assert (lease.prefix_length, address_text(lease.gateway), address_text(lease.server)) == (24, ROUTER, ROUTER)
    assert (lease.duration_s, lease.dns, lease.domain) == (SECONDS, (address_int(ROUTER),), "isp.example")
    host.run_to("renewing")
    host.hear("renewed")
    assert host.lease is not None
    assert host.lease.address == lease.address
    host.told.clear()
    host.run_to("rebinding")
    host.hear("renewed")
    assert host.lease is not None
    assert host.lease.address == lease.address
    server.stop()
    host.told.clear()
    host.run_to("selecting")
    assert (host.told, host.lease) == (["expired"], None)


def test_d17_an_address_of_another_network_is_refused_at_init_reboot(server: Server, host: Host) -> None:
    server.start(seconds=SECONDS)
    lease = host.bound()
    elsewhere = lease._replace(address=address_int("10.11.12.13"), gateway=address_int("10.11.12.1"))
    host.lease = None
    host.client = Client(ClientSettings(MAC), random.Random(5), random.Random(6))
    host.take(host.client.start(host.now, elsewhere))
    assert host.client.state == "rebooting"
    host.hear("nak")
    host.hear("bound")
    assert host.lease is not None
    assert host.lease.address == lease.address, "the server remembers who asks"


def test_d12_d17_a_known_address_is_confirmed_at_init_reboot(server: Server, host: Host) -> None:
    server.start(seconds=SECONDS)
    lease = host.bound()
    host.lease = None
    host.client = Client(ClientSettings(MAC), random.Random(5), random.Random(6))
    host.take(host.client.start(host.now, lease))
    host.hear("bound")
    assert host.lease is not None
    assert host.lease.address == lease.address
    assert host.told == ["bound"]


def test_d10_a_released_address_is_free_for_others(server: Server, host: Host) -> None:
    server.start(seconds=SECONDS, last=FIRST)  # a pool of one address
    lease = host.bound()
    host.take(host.client.release(host.now))
    assert host.told == ["released"]
    other = bytes.fromhex("020000000151")
    host.client = Client(ClientSettings(other), random.Random(5), random.Random(6))
    host.told.clear()
    assert host.bound().address == lease.address


def test_d6_dnsmasq_refuses_a_renewal_once_its_pool_is_another_one(bare_lab: Lab, host: Host) -> None:
    needing("dnsmasq")
    server = Server("dnsmasq", bare_lab.namespaces["isp"], bare_lab.folder)
    try:
        server.start(seconds=SECONDS)
        lease = host.bound()
        server.stop()
        server.forget()
        server.start(seconds=SECONDS, first="192.168.1.80", last="192.168.1.89")
        host.run_to("renewing")
        for _ in range(5):
            try:
                host.hear("nak", 2.0)
                break
            except CommandFailed:  # it was still starting
                host.take(host.client.renew(host.now))
        host.hear("bound")
        assert host.lease is not None
        assert host.lease.address != lease.address
    finally:
        server.stop()
        server.forget()
