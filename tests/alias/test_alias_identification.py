"""RFC 7857 10, RFC 6864 5.3.1: identifications behind one address."""

from __future__ import annotations

import random

from alias.identification import GENERATION, Identifications
from alias.types import Egress
from tests.alias.nat import A, B, C, E, F, Nat
from wire import ipv4
from wire.ipv4 import Packet
from wire.units import SECOND_NS, address_int


def datagram(
    source: str, identification: int, destination: str = E, protocol: int = ipv4.UDP, flags: int = ipv4.MORE_FRAGMENTS
) -> Packet:
    header = ipv4.header(
        address_int(source), address_int(destination), protocol, 16, identification=identification, flags=flags
    )
    return Packet(bytearray(header + bytes(16)), None)


def choose(nat: Nat, packet: Packet) -> int:
    return nat.aliases.identification(nat.egress, packet, nat.now)


def test_two_hosts_never_share_an_identification_towards_one_remote() -> None:
    """R8: A and B with 0x1234 to E."""
    nat = Nat()
    assert choose(nat, datagram(A, 0x1234)) == 0x1234
    assert choose(nat, datagram(A, 0x1234)) == 0x1234, "its own affair"
    other = choose(nat, datagram(B, 0x1234))
    assert other != 0x1234
    third = choose(nat, datagram(C, 0x1234))
    assert third not in (0x1234, other)
    assert choose(nat, datagram(C, other)) not in (0x1234, other)


def test_other_remotes_protocols_and_egresses_are_apart() -> None:
    """R8: (source, destination, protocol, identification) is what must be unique."""
    nat = Nat()
    assert choose(nat, datagram(A, 7)) == 7
    assert choose(nat, datagram(B, 7, F)) == 7
    assert choose(nat, datagram(B, 7, protocol=ipv4.TCP)) == 7
    nat.egress = Egress.VPN
    assert choose(nat, datagram(B, 7)) == 7


def test_it_does_not_matter_where_a_packet_may_not_be_fragmented() -> None:
    """R8: DF set and no fragment: left as it is, and not remembered."""
    nat = Nat()
    for host in (A, B, C):
        assert choose(nat, datagram(host, 0, flags=ipv4.DONT_FRAGMENT)) == 0
    assert choose(nat, datagram(A, 0)) == 0
    assert choose(nat, datagram(B, 0, flags=0)) != 0
    assert choose(nat, datagram(B, 0, flags=ipv4.DONT_FRAGMENT | ipv4.MORE_FRAGMENTS)) != 0


def test_an_identification_is_free_again_after_a_while() -> None:
    """R8: not before 30 seconds, at the latest after 60."""
    for pause, is_free in ((29.9, False), (60, True), (3600, True)):
        nat = Nat()
        choose(nat, datagram(C, 1))
        choose(nat, datagram(A, 7))
        nat.after(pause)
        assert (choose(nat, datagram(B, 7)) == 7) == is_free


def test_an_identification_in_use_is_not_forgotten() -> None:
    """R8."""
    nat = Nat()
    for _ in range(10):
        choose(nat, datagram(A, 7))
        nat.after(25)
    assert choose(nat, datagram(B, 7)) != 7


def test_the_hosts_own_identification_is_known_for_what_errors_quote() -> None:
    """R8, I4: also after a generation has turned, and never another host's."""
    memory, e = Identifications(random.Random(1)), address_int(E)
    memory.choose(Egress.TAP1, datagram(A, 7), SECOND_NS)
    changed = memory.choose(Egress.TAP1, datagram(B, 7), SECOND_NS)
    for now in (SECOND_NS, 32 * SECOND_NS):
        memory.choose(Egress.TAP1, datagram(C, 1), now)
        assert memory.original(Egress.TAP1, ipv4.UDP, address_int(B), e, changed) == 7
        assert memory.original(Egress.TAP1, ipv4.UDP, address_int(A), e, 7) == 7
        assert memory.original(Egress.TAP1, ipv4.UDP, address_int(A), e, changed) == changed
        assert memory.original(Egress.VPN, ipv4.UDP, address_int(B), e, changed) == changed


def test_the_memory_is_bounded() -> None:
    """R8."""
    memory = Identifications(random.Random(1))
    for number in range(5 * GENERATION):
        packet = datagram(A, number & 0xFFFF)
        packet.destination = number
        memory.choose(Egress.TAP1, packet, 10 * SECOND_NS)
        assert len(memory) <= 2 * GENERATION


def test_where_every_identification_is_taken_the_packet_still_gets_one() -> None:
    """R8."""
    memory = Identifications(random.Random(1))
    for number in range(0x4000):
        memory.choose(Egress.TAP1, datagram(A, number), SECOND_NS)
    chosen = [memory.choose(Egress.TAP1, datagram(B, number), SECOND_NS) for number in range(0x2000)]
    assert all(0 <= identification <= 0xFFFF for identification in chosen)
