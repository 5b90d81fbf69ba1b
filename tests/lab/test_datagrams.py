"""The tunnel's sockets over real kernels: what leaves, by which way, what comes, and what routers say about it.

Two namespaces with a cable between them (`outer`), and another one (`second`) from the first to a third namespace.
"""

from __future__ import annotations

import errno
import random
import select
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from bridge.ports.namespace import entered
from bridge.ports.udp import datagrams as module
from bridge.ports.udp.datagrams import DatagramSocket
from bridge.ports.udp.paths import MOST_KNOWN
from lab.namespace import Namespace
from lab.outside import OUTER_EXIT, OUTER_GATEWAY
from lab.topology import Lab
from tunnel.ecn import CE, HANDSHAKE_TOS
from tunnel.effects import Datagram, Endpoint, Received, TooBig
from wire.drop import Drop

pytestmark = pytest.mark.lab

DEADLINE_S = 10.0
HERE, THERE = 5001, 5002
OUTER_6 = {"gw": "fd00::1", "exit": "fd00::2"}
SECOND_HERE, SECOND_THERE = "10.99.0.1", "10.99.0.2"
_EVERY_PROTOCOL = 0x0003
BOTH = pytest.mark.parametrize(("address", "home"), [(OUTER_EXIT, OUTER_GATEWAY), ("fd00::2", "fd00::1")])


def endpoint(address: str, port: int = THERE) -> Endpoint:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return Endpoint(socket.inet_pton(family, address), port)


@pytest.fixture(scope="module")
def outside(bare_lab: Lab) -> Lab:
    bare_lab.join_outside()
    gw = bare_lab.namespaces["gw"]
    gw.ip("link add second type veth peer name second netns isp")
    for name, address in {"gw": SECOND_HERE, "isp": SECOND_THERE}.items():
        bare_lab.namespaces[name].ip(f"addr add {address}/24 dev second")
        bare_lab.namespaces[name].ip("link set second up")
    for name, address in OUTER_6.items():
        with entered(name):
            Path("/proc/sys/net/ipv6/conf/outer/disable_ipv6").write_text("0")
        bare_lab.namespaces[name].ip(f"-6 addr add {address}/64 dev outer nodad")
    return bare_lab


class Ends:
    """Sockets of ours, each used in the namespace that it was opened in."""

    def __init__(self, lab: Lab, stack: ExitStack) -> None:
        self.gw: Namespace = lab.namespaces["gw"]
        self.exit: Namespace = lab.namespaces["exit"]
        self.dropped: Counter[Drop] = Counter()
        self._stack = stack
        with entered("gw"):
            self.ours = DatagramSocket(HERE, avoid="inward", count=self._count)
        stack.callback(self.ours.close)
        self.theirs = self.open("exit", THERE)

    def _count(self, reason: Drop, number: int) -> None:
        self.dropped[reason] += number

    def open(self, name: str, port: int) -> DatagramSocket:
        with entered(name):
            opened = DatagramSocket(port)
        self._stack.callback(opened.close)
        return opened

    def undo(self, namespace: Namespace, line: str) -> None:
        """Something for the end, also where the test fails before."""
        self._stack.callback(namespace.ip, line)

    def send(self, *datagrams: Datagram) -> dict[Drop, int]:
        """The gateway's end sends."""
        with entered("gw"):
            self.ours.read_burst(0)  # hears what changed in the kernel's routes, as the loop does before
            return dict(self.ours.send_burst(datagrams))

    def answer(self, *datagrams: Datagram, by: DatagramSocket | None = None, name: str = "exit") -> dict[Drop, int]:
        with entered(name):
            return dict((by or self.theirs).send_burst(datagrams))

    def eavesdrop(self, name: str, device: str) -> socket.socket:
        with entered(name):
            ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL))
            self._stack.callback(ear.close)
            ear.bind((device, _EVERY_PROTOCOL))
            ear.setblocking(False)
        return ear

    def forge(self, *packets: Packet) -> None:
        """Packets of the far end that its kernel knows nothing of."""
        mac = self.gw.ip("-br link show dev outer").split()[2]
        with entered("exit"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
            mouth.bind(("outer", 0))
            for packet in packets:
                mouth.send(bytes(Ether(dst=mac, type=0x86DD if IPv6 in packet else 0x0800) / packet))


@pytest.fixture
def ends(outside: Lab) -> Iterator[Ends]:
    with ExitStack() as stack:
        yield Ends(outside, stack)


def taken(at: DatagramSocket, number: int = 1) -> list[Received]:
    """That many datagrams, as soon as they are there."""
    got: list[Received] = []
    while len(got) < number:
        assert select.select([at], [], [], DEADLINE_S)[0], f"{len(got)} of {number} datagrams came"
        got += at.read_burst(64)
    return got


def signals(at: DatagramSocket, number: int = 1) -> list[TooBig]:
    got: list[TooBig] = []
    while len(got) < number:
        assert select.select([at], [], [], DEADLINE_S)[0], f"{len(got)} of {number} signals came"
        at.read_burst(64)
        got += at.read_signals()
    return got


def heard(ear: socket.socket, number: int, wanted: Callable[[Packet], bool]) -> list[Packet]:
    """That many packets on a device, as soon as they pass."""
    got: list[Packet] = []
    while len(got) < number:
        assert select.select([ear], [], [], DEADLINE_S)[0], f"{len(got)} of {number} packets passed"
        packet = Ether(ear.recv(1 << 16)).payload
        if wanted(packet):
            got.append(packet)
    return got


# What passes


@BOTH
def test_datagrams_of_all_sizes_and_marks_pass_whole_and_in_order(ends: Ends, address: str, home: str) -> None:
    """Runs of one size and mark go in pieces of up to 64 and are cut again."""
    rng = random.Random(1)
    sizes = [1000] * 150 + [500, 32, 1452, 1452, 148] + [32] * 100 + [rng.choice((32, 900, 1400)) for _ in range(200)]
    marks = [0] * 40 + [2] * 40 + [3] * 20 + [rng.choice((0, 0, 0, 2, 3)) for _ in sizes[100:]]
    there = endpoint(address)
    burst = [Datagram(there, rng.randbytes(size), mark) for size, mark in zip(sizes, marks, strict=True)]
    assert not ends.send(*burst)
    got = taken(ends.theirs, len(burst))
    assert [datagram.data for datagram in got] == [datagram.data for datagram in burst]
    assert [datagram.ecn for datagram in got] == marks
    assert {datagram.source for datagram in got} == {endpoint(home, HERE)}
    assert ends.theirs.read_burst(64) == []


def test_datagrams_to_several_ends_keep_their_order_at_each(ends: Ends) -> None:
    rng = random.Random(2)
    other = ends.open("exit", THERE + 1)
    where = [endpoint(OUTER_EXIT), endpoint("fd00::2"), endpoint(OUTER_EXIT, THERE + 1), endpoint("fd00::2", THERE + 1)]
    sizes, marks = (32, 32, 1200), (0, 0, 2)
    burst = [Datagram(rng.choice(where), rng.randbytes(rng.choice(sizes)), rng.choice(marks)) for _ in range(400)]
    assert not ends.send(*burst)
    got = {port: [one for one in burst if one.endpoint.port == port] for port in (THERE, THERE + 1)}
    for port, at in ((THERE, ends.theirs), (THERE + 1, other)):
        came = taken(at, len(got[port]))
        for home, there in ((OUTER_GATEWAY, OUTER_EXIT), ("fd00::1", "fd00::2")):
            sent = [one.data for one in burst if one.endpoint == endpoint(there, port)]
            assert [one.data for one in came if one.source == endpoint(home, HERE)] == sent


def test_a_port_that_is_taken_in_either_family_is_refused(ends: Ends) -> None:
    with entered("gw"):
        with pytest.raises(OSError, match="in use"):
            DatagramSocket(HERE)
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six:
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            six.bind(("::", HERE + 9))
            with pytest.raises(OSError, match="in use"):
                DatagramSocket(HERE + 9)
        DatagramSocket(HERE + 9).close()


def test_without_ipv6_in_the_kernel_ipv4_goes_on(outside: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def refusing(family: int, *more: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6")
        return real(family, *more)

    with entered("gw"):
        monkeypatch.setattr(socket, "socket", refusing)
        alone = DatagramSocket(0)
        monkeypatch.undo()
        assert not alone.has_ipv6
        to_itself = Datagram(Endpoint(socket.inet_aton("127.0.0.1"), alone.port), b"four")
        assert alone.send_burst([Datagram(endpoint("fd00::2"), b"six"), to_itself]) == {Drop.PORT_DOWN: 1}
        assert [datagram.data for datagram in taken(alone)] == [b"four"]
        alone.close()


def test_a_piece_whose_cut_is_not_told_is_dropped_and_counted(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANCILLARY_BYTES", 4)
    assert not ends.answer(Datagram(endpoint(OUTER_GATEWAY, HERE), b"cut"))
    assert select.select([ends.ours], [], [], DEADLINE_S)[0]
    assert ends.ours.read_burst(64) == []
    assert ends.dropped == {Drop.PORT_MALFORMED: 1}


# The outer header


@BOTH
def test_w28_outer_packets_carry_dscp_0_or_the_handshake_s_and_are_never_fragments(
    ends: Ends, address: str, home: str
) -> None:
    """W28: DF on every IPv4 packet; the TOS byte is that of the datagram, also where a run goes in one piece."""
    ear = ends.eavesdrop("exit", "outer")
    there = endpoint(address)
    tos = [0, HANDSHAKE_TOS, 0, 0, 0, 2, 2, 0]
    sizes = [148, 148, 1432, 1432, 1432, 1432, 1432, 40]
    assert not ends.send(*(Datagram(there, bytes(size), mark) for size, mark in zip(sizes, tos, strict=True)))
    passed: list[tuple[int, int]] = []
    while sum(size for size, _ in passed) < sum(sizes):
        [packet] = heard(ear, 1, lambda packet: UDP in packet and packet[UDP].dport == THERE)
        if IP in packet:
            assert (packet[IP].flags, packet[IP].frag) == ("DF", 0)
        else:
            assert packet[IPv6].nh == socket.IPPROTO_UDP
        passed.append((len(packet[UDP].payload), packet[IP].tos if IP in packet else packet[IPv6].tc))
    marks: list[int] = []
    for size, mark in passed:  # a veth passes a run in one piece
        end = sum(sizes[: len(marks)]) + size
        while sum(sizes[: len(marks)]) < end:
            marks.append(mark)
    assert marks == tos


@BOTH
def test_g30_the_mark_of_the_outer_header_is_read(ends: Ends, address: str, home: str) -> None:
    """G30: what routers say about congestion reaches the tunnel, in pieces too."""
    back = endpoint(home, HERE)
    marks = [0, CE, CE, CE, 2, 1, HANDSHAKE_TOS]
    assert not ends.answer(*(Datagram(back, bytes(100), mark) for mark in marks))
    assert [datagram.ecn for datagram in taken(ends.ours, len(marks))] == [mark & 3 for mark in marks]


# Signals


@BOTH
def test_what_the_device_does_not_take_is_told_and_shorter_ones_pass(ends: Ends, address: str, home: str) -> None:
    there = endpoint(address)
    headers = 28 if "." in address else 48
    fits = 1500 - headers
    sizes = [fits + 1] * 10 + [200] + [fits] * 3 + [fits + 400] * 2 + [100, 9000, 60_000, 100]
    refused = ends.send(*(Datagram(there, bytes(size)) for size in sizes))
    assert refused == {Drop.PORT_TOO_LONG: 14}
    assert [len(one.data) for one in taken(ends.theirs, 6)] == [200, fits, fits, fits, 100, 100]
    assert signals(ends.ours) == [TooBig(there, 1500, b"", b"")]
    assert not select.select([ends.ours], [], [], 0)[0]
    assert ends.ours.read_signals() == []


def test_what_a_router_says_about_sizes_is_told_with_its_quote(ends: Ends) -> None:
    """The path MTU that the kernel makes of it is not used: only the tunnel knows whether the quote is genuine."""
    there = endpoint(OUTER_EXIT)
    assert not ends.send(Datagram(there, b"a" * 1400))
    taken(ends.theirs)
    lost = IPerror(src=OUTER_GATEWAY, dst=OUTER_EXIT, flags="DF") / UDPerror(sport=HERE, dport=THERE) / Raw(b"q" * 99)
    ends.forge(IP(src="198.51.100.200", dst=OUTER_GATEWAY) / ICMP(type=3, code=4, nexthopmtu=1280) / lost)
    assert signals(ends.ours) == [TooBig(there, 1280, b"q" * 99, socket.inet_aton("198.51.100.200"))]
    ear = ends.eavesdrop("exit", "outer")
    assert not ends.send(Datagram(there, b"b" * 1400))
    assert [one.data for one in taken(ends.theirs)] == [b"b" * 1400]
    [packet] = heard(ear, 1, lambda packet: UDP in packet and packet[UDP].dport == THERE)
    assert (packet[IP].flags, packet[IP].frag) == ("DF", 0)


def test_what_an_ipv6_router_says_about_sizes_is_told_with_its_quote(ends: Ends) -> None:
    there = endpoint("fd00::2")
    assert not ends.send(Datagram(there, b"a" * 1400))
    taken(ends.theirs)
    lost = IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=HERE, dport=THERE) / Raw(b"q" * 99)
    ends.forge(IPv6(src="fd00::77", dst="fd00::1") / ICMPv6PacketTooBig(mtu=1300) / lost)
    assert signals(ends.ours) == [TooBig(there, 1300, b"q" * 99, endpoint("fd00::77").address)]
    assert not ends.send(Datagram(there, b"b" * 1400))
    assert [one.data for one in taken(ends.theirs)] == [b"b" * 1400]


def unreachable(code: int) -> Packet:
    lost = IPerror(src=OUTER_GATEWAY, dst=OUTER_EXIT) / UDPerror(sport=HERE, dport=THERE) / Raw(b"x" * 40)
    return IP(src=OUTER_EXIT, dst=OUTER_GATEWAY) / ICMP(type=3, code=code) / lost


def test_w27_unreachables_of_the_outer_path_are_counted_and_neither_lose_nor_delay_anything(ends: Ends) -> None:
    """W27: whatever code they have, real or forged, what is sent and what has come passes as before."""
    there, back = endpoint(OUTER_EXIT), endpoint(OUTER_GATEWAY, HERE)
    for number, code in enumerate((0, 1, 2, 3, 5, 9, 10, 13)):
        ends.forge(unreachable(code))
        data = [bytes([number, index]) * 40 for index in range(70)]
        assert not ends.answer(*(Datagram(back, one) for one in data))
        assert not ends.send(*(Datagram(there, one) for one in data))
        assert [one.data for one in taken(ends.theirs, 70)] == data
        assert [one.data for one in taken(ends.ours, 70)] == data
        while select.select([ends.ours], [], [], 0)[0]:  # and then it is quiet
            assert ends.ours.read_burst(64) == []
    assert ends.dropped == {Drop.TUNNEL_OUTER_ICMP: 8}
    assert ends.ours.read_signals() == []


def test_w27_a_flood_of_errors_leaves_the_socket_usable(ends: Ends) -> None:
    """W27: more errors than one turn takes are read in the next ones, and what comes between them is not lost."""
    ends.forge(*[Raw(bytes(unreachable(3)))] * 3000)
    assert not ends.answer(*(Datagram(endpoint(OUTER_GATEWAY, HERE), bytes(100)) for _ in range(100)))
    assert not ends.send(*(Datagram(endpoint(OUTER_EXIT), bytes(100)) for _ in range(100)))
    assert len(taken(ends.ours, 100)) == 100
    assert len(taken(ends.theirs, 100)) == 100
    while select.select([ends.ours], [], [], 0)[0]:
        ends.ours.read_burst(64)
    assert 0 < ends.dropped[Drop.TUNNEL_OUTER_ICMP] <= 3000


def test_a_real_port_unreachable_is_not_heeded(ends: Ends) -> None:
    nobody = endpoint(OUTER_EXIT, THERE + 5)
    assert not ends.send(Datagram(nobody, b"hello?"))
    assert select.select([ends.ours], [], [], DEADLINE_S)[0]
    assert not ends.send(Datagram(nobody, b"hello?"), Datagram(endpoint(OUTER_EXIT), b"you"))
    assert [one.data for one in taken(ends.theirs)] == [b"you"]
    assert ends.dropped[Drop.TUNNEL_OUTER_ICMP] > 0


# Ways


def test_who_wrote_to_another_address_of_ours_is_answered_from_that(ends: Ends) -> None:
    ends.gw.ip("addr add 198.51.100.9/24 dev outer")
    ends.undo(ends.gw, "addr flush dev outer to 198.51.100.9")
    ends.gw.ip("-6 addr add fd00::9/64 dev outer nodad")
    ends.undo(ends.gw, "-6 addr flush dev outer to fd00::9")
    for second, first, there in (("198.51.100.9", OUTER_GATEWAY, OUTER_EXIT), ("fd00::9", "fd00::1", "fd00::2")):
        for called in (second, first, second):
            assert not ends.answer(Datagram(endpoint(called, HERE), b"call"))
            [call] = taken(ends.ours)
            assert call.source == endpoint(there)
            assert not ends.send(*(Datagram(call.source, bytes(50), 2) for _ in range(5)))
            assert {one.source for one in taken(ends.theirs, 5)} == {endpoint(called, HERE)}


def test_who_pretends_to_be_somebody_does_not_turn_the_answers_to_another_address_of_ours(ends: Ends) -> None:
    """The endpoint that came with a datagram decides, not the last one from there: the tunnel keeps the genuine one."""
    ends.gw.ip("addr add 198.51.100.9/24 dev outer")
    ends.undo(ends.gw, "addr flush dev outer to 198.51.100.9")
    heard_at = []
    for called in ("198.51.100.9", OUTER_GATEWAY):
        assert not ends.answer(Datagram(endpoint(called, HERE), b"call"))
        heard_at += [one.source for one in taken(ends.ours)]
    genuine, forged = heard_at
    assert genuine == forged
    for source, home in ((genuine, "198.51.100.9"), (forged, OUTER_GATEWAY), (genuine, "198.51.100.9")):
        assert not ends.send(Datagram(source, b"answer"))
        assert [one.source for one in taken(ends.theirs)] == [endpoint(home, HERE)]


def test_an_answer_whose_address_is_gone_leaves_from_another_one(ends: Ends) -> None:
    ends.gw.ip("addr add 198.51.100.9/24 dev outer")
    ends.undo(ends.gw, "addr flush dev outer to 198.51.100.9")
    assert not ends.answer(Datagram(endpoint("198.51.100.9", HERE), b"call"))
    [call] = taken(ends.ours)
    for told in (False, True):
        ends.gw.ip("addr del 198.51.100.9/24 dev outer")
        if told:
            ends.ours.read_burst(0)
        with entered("gw"):
            assert not ends.ours.send_burst([Datagram(call.source, bytes(50))] * 3)
        assert {one.source for one in taken(ends.theirs, 3)} == {endpoint(OUTER_GATEWAY, HERE)}
        ends.gw.ip("addr add 198.51.100.9/24 dev outer")
        assert not ends.answer(Datagram(endpoint("198.51.100.9", HERE), b"call"))
        [call] = taken(ends.ours)
        assert not ends.send(Datagram(call.source, bytes(50)))
        assert [one.source for one in taken(ends.theirs)] == [endpoint("198.51.100.9", HERE)]


def test_who_came_by_where_nothing_leads_back_is_answered_as_the_routes_say(ends: Ends, outside: Lab) -> None:
    isp = outside.namespaces["isp"]
    isp.ip("addr add 198.51.100.50/32 dev lo")
    ends.undo(isp, "addr del 198.51.100.50/32 dev lo")
    ends.exit.ip("addr add 198.51.100.50/32 dev lo")
    ends.undo(ends.exit, "addr del 198.51.100.50/32 dev lo")
    with entered("gw"):
        for scope in ("all", "second"):
            Path(f"/proc/sys/net/ipv4/conf/{scope}/rp_filter").write_text("0")
    with entered("isp"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.bind(("198.51.100.50", THERE))
        caller.sendto(b"call", (SECOND_HERE, HERE))
    ear = ends.eavesdrop("exit", "outer")
    [call] = taken(ends.ours)
    assert not ends.send(Datagram(call.source, bytes(50)))
    [answer] = heard(ear, 1, lambda packet: UDP in packet and packet[UDP].dport == THERE)
    assert (answer[IP].src, answer[IP].dst) == (SECOND_HERE, "198.51.100.50")


def test_a_link_local_caller_is_answered_by_the_link_that_it_is_on(ends: Ends) -> None:
    for namespace, address in ((ends.gw, "fe80::a"), (ends.exit, "fe80::b")):
        namespace.ip(f"-6 addr add {address}/64 dev outer nodad")
        ends.undo(namespace, f"-6 addr del {address}/64 dev outer")
    with entered("exit"), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as caller:
        caller.settimeout(DEADLINE_S)
        caller.bind(("fe80::b", 0, 0, socket.if_nametoindex("outer")))
        caller.sendto(b"call", ("fe80::a", HERE, 0, socket.if_nametoindex("outer")))
        [call] = taken(ends.ours)
        assert not ends.send(Datagram(call.source, b"answer"))
        data, source = caller.recvfrom(100)
    assert (data, source[0].partition("%")[0], source[1]) == (b"answer", "fe80::a", HERE)
    assert ends.send(Datagram(endpoint("fe80::77"), b"where?")) == {Drop.PORT_DOWN: 1}


@pytest.fixture
def taken_over(ends: Ends, outside: Lab) -> socket.socket:
    """The device `inward` has the default route's halves; an ear on it."""
    ends.gw.ip("link add inward type veth peer name beyond")
    ends.undo(ends.gw, "link del inward")
    ends.gw.ip("link set beyond up")
    ends.gw.ip("link set inward arp off up")
    ends.gw.ip("addr add 192.168.192.211/24 dev inward")
    for half in ("0.0.0.0/1", "128.0.0.0/1"):
        ends.gw.ip(f"route add {half} dev inward scope link")
    outside.namespaces["isp"].ip("addr add 203.0.113.20/32 dev lo")
    ends.undo(outside.namespaces["isp"], "addr del 203.0.113.20/32 dev lo")
    ends.exit.ip("addr add 203.0.113.10/32 dev lo")
    ends.undo(ends.exit, "addr del 203.0.113.10/32 dev lo")
    return ends.eavesdrop("gw", "inward")


def sealed_in(ear: socket.socket) -> int:
    number = 0
    while select.select([ear], [], [], 0)[0]:
        number += UDP in Ether(ear.recv(1 << 16))
    return number


def test_beside_the_avoided_device_each_endpoint_has_the_kernel_s_own_route(
    ends: Ends, outside: Lab, taken_over: socket.socket
) -> None:
    """On-link, by a route of its own, by the default route: each by its device, although tun0 has the default."""
    isp = ends.open("isp", THERE)
    behind, beyond = endpoint("203.0.113.20"), endpoint("203.0.113.10")
    assert ends.send(Datagram(beyond, b"no way yet")) == {Drop.PORT_DOWN: 1}
    ends.gw.ip(f"route add default via {OUTER_EXIT} dev outer metric 50")
    ends.undo(ends.gw, "route flush default dev outer")
    ends.gw.ip(f"route add default via {SECOND_THERE} dev second metric 70")
    ends.undo(ends.gw, "route flush default dev second")
    ends.gw.ip(f"route add 203.0.113.20/32 via {SECOND_THERE} dev second")
    ends.undo(ends.gw, "route flush 203.0.113.20/32")
    burst = [Datagram(where, bytes(99)) for where in (endpoint(OUTER_EXIT), endpoint(SECOND_THERE), behind, beyond)]
    assert not ends.send(*burst)
    assert {one.source for one in taken(ends.theirs, 2)} == {endpoint(OUTER_GATEWAY, HERE)}
    assert {one.source for one in taken(isp, 2)} == {endpoint(SECOND_HERE, HERE)}
    ends.gw.ip(f"route replace default via {SECOND_THERE} dev second metric 40")
    outside.namespaces["isp"].ip("addr add 203.0.113.10/32 dev lo")
    ends.undo(outside.namespaces["isp"], "addr del 203.0.113.10/32 dev lo")
    assert not ends.send(Datagram(beyond, b"by another device"))
    assert [one.data for one in taken(isp)] == [b"by another device"]
    assert sealed_in(taken_over) == 0


def test_a_caller_is_answered_by_its_own_device_and_never_by_the_avoided_one(
    ends: Ends, outside: Lab, taken_over: socket.socket
) -> None:
    ends.gw.ip(f"route add default via {OUTER_EXIT} dev outer")
    ends.undo(ends.gw, "route flush default dev outer")
    ends.gw.ip(f"route add default via {SECOND_THERE} dev second metric 70")
    ends.undo(ends.gw, "route flush default dev second")
    isp = outside.namespaces["isp"]
    isp.ip("addr add 203.0.113.10/32 dev lo")
    ends.undo(isp, "addr del 203.0.113.10/32 dev lo")
    with entered("gw"):
        for scope in ("all", "second"):
            Path(f"/proc/sys/net/ipv4/conf/{scope}/rp_filter").write_text("0")
    with entered("isp"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.bind(("203.0.113.10", THERE))
        caller.settimeout(DEADLINE_S)
        caller.sendto(b"call", (SECOND_HERE, HERE))
        [call] = taken(ends.ours)
        assert not ends.send(Datagram(call.source, b"answer"))
        assert caller.recvfrom(100) == (b"answer", (SECOND_HERE, HERE))
    assert sealed_in(taken_over) == 0


def test_thousands_of_strangers_do_not_make_us_forget_by_which_address_a_peer_knows_us(ends: Ends) -> None:
    ends.gw.ip("addr add 198.51.100.9/24 dev outer")
    ends.undo(ends.gw, "addr flush dev outer to 198.51.100.9")
    assert not ends.answer(Datagram(endpoint("198.51.100.9", HERE), b"call"))
    [call] = taken(ends.ours)
    base = bytes(IP(src="198.51.100.66", dst=OUTER_GATEWAY) / UDP(sport=1, dport=HERE, chksum=0) / Raw(b"stranger"))
    for thousand in range(5):
        ports = range(1000 * thousand + 1, 1000 * thousand + 1001)
        ends.forge(*(Raw(base[:20] + port.to_bytes(2, "big") + base[22:]) for port in ports))
        strangers = taken(ends.ours, 1000)
        assert len({one.source for one in strangers}) == 1000
        ends.send(*(Datagram(one.source, b"answer") for one in strangers))
        assert not ends.send(Datagram(call.source, b"peer"))
        assert [one.source for one in taken(ends.theirs)] == [endpoint("198.51.100.9", HERE)]
    paths = ends.ours._paths
    assert max(len(paths.senders), len(paths._paths)) <= MOST_KNOWN
