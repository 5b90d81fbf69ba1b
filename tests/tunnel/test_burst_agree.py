"""The compiled cipher against the plain one: the same bytes, verdicts and errors, alone and with help."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tunnel_world import connected, inner

from tests.compiled import compiled_cipher
from tunnel.effects import Received
from tunnel.primitives import BurstCipher, Cipher, TransportKey

PLAIN = Cipher()
KEY = bytes(range(32))
KEYS = [TransportKey(bytearray(bytes([number]) * 32)) for number in (7, 8)]
LAST = (1 << 64) - (1 << 13) - 2
HELPERS = 3
WAIT_S = 10.0

# Around the padding, around the MTU, and anywhere an inner packet can be.
SIZES = st.one_of(st.integers(0, 70), st.integers(1400, 1450), st.integers(0, 65_536))
MTUS = st.one_of(st.sampled_from([0, 1, 15, 16, 17, 1280, 1419, 1420, 1421, 1500, 65_535]), st.integers(0, 70_000))


class Helped:
    """The compiled cipher with threads that help it."""

    def __init__(self) -> None:
        self.cipher = compiled_cipher()()
        self.threads = [threading.Thread(target=self.cipher.help, daemon=True) for _ in range(HELPERS)]
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        self.cipher.release()
        for thread in self.threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()


@pytest.fixture(scope="module", params=["alone", "helped"])
def compiled(request: pytest.FixtureRequest) -> Iterator[BurstCipher]:
    if request.param == "alone":
        yield compiled_cipher()()
        return
    helped = Helped()
    yield helped.cipher
    helped.close()


def packets_of(sizes: list[int], seed: int) -> list[bytes]:
    rng = random.Random(seed)
    return [rng.randbytes(size) for size in sizes]


@given(
    sizes=st.lists(SIZES, max_size=40),
    seed=st.integers(0, 1 << 32),
    receiver=st.one_of(st.sampled_from([0, 1, 1 << 31, (1 << 32) - 1]), st.integers(0, (1 << 32) - 1)),
    first=st.one_of(st.sampled_from([0, 255, 1 << 32, (1 << 63) - 20, LAST - 40]), st.integers(0, LAST - 40)),
    mtu_bytes=MTUS,
)
@example(sizes=[0], seed=0, receiver=1, first=0, mtu_bytes=1420)
@example(sizes=[1418, 1419, 1420, 1421], seed=0, receiver=1, first=0, mtu_bytes=1420)
@example(sizes=[65_535, 65_536], seed=0, receiver=1, first=0, mtu_bytes=65_535)
def test_both_seal_to_the_same_bytes_and_open_them_again(
    compiled: BurstCipher, sizes: list[int], seed: int, receiver: int, first: int, mtu_bytes: int
) -> None:
    packets = packets_of(sizes, seed)
    sealed = compiled.seal_burst(KEYS[0], receiver, first, packets, mtu_bytes)
    assert sealed == PLAIN.seal_burst(KEYS[0], receiver, first, packets, mtu_bytes)
    assert packets == packets_of(sizes, seed), "what was given is not written to"
    jobs = [(KEYS[0], datagram) for datagram in sealed if len(datagram) <= 65_536 + 32]
    opened = compiled.open_burst(jobs)
    assert opened == PLAIN.open_burst(jobs)
    for packet, plain in zip(packets, opened, strict=False):
        assert plain is not None
        assert plain[: len(packet)] == packet
        assert not any(plain[len(packet) :])


@given(
    sizes=st.lists(SIZES, min_size=1, max_size=40),
    seed=st.integers(0, 1 << 32),
    harm=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 70_000), st.integers(0, 255)), max_size=40),
    strange=st.sets(st.integers(0, 39)),
)
def test_both_refuse_the_same_forgeries_and_only_these(
    compiled: BurstCipher, sizes: list[int], seed: int, harm: list[tuple[int, int, int]], strange: set[int]
) -> None:
    datagrams = PLAIN.seal_burst(KEYS[0], 5, 77, packets_of(sizes, seed), 1420)
    for number, at, bits in harm:
        changed = bytearray(datagrams[number % len(datagrams)])
        changed[at % len(changed)] ^= bits
        datagrams[number % len(datagrams)] = bytes(changed)
    jobs = [(KEYS[number in strange], datagram) for number, datagram in enumerate(datagrams)]
    opened = compiled.open_burst(jobs)
    assert opened == PLAIN.open_burst(jobs)
    assert all(opened[number] is None for number in strange if number < len(opened))


@given(st.lists(st.binary(min_size=32, max_size=200), max_size=60))
def test_both_refuse_whatever_nobody_sealed(compiled: BurstCipher, datagrams: list[bytes]) -> None:
    jobs = [(KEYS[0], datagram) for datagram in datagrams]
    assert compiled.open_burst(jobs) == PLAIN.open_burst(jobs) == [None] * len(jobs)


@pytest.mark.parametrize("size", [0, 15, 16, 31, 65_569, 100_000])
def test_both_call_a_message_of_an_impossible_length_an_error_of_ours(compiled: BurstCipher, size: int) -> None:
    jobs = [(KEYS[0], bytes(64)), (KEYS[0], bytes(size)), (KEYS[0], bytes(64))]
    for cipher in (PLAIN, compiled):
        with pytest.raises(ValueError, match=f"a data message of {size} bytes"):
            cipher.open_burst(jobs)
        assert cipher.open_burst(jobs[:1]) == [None], "it is of use afterwards"


def test_both_call_a_packet_of_an_impossible_length_an_error_of_ours(compiled: BurstCipher) -> None:
    packets = [bytes(1420)] * 50 + [bytes(65_537)]
    for cipher in (PLAIN, compiled):
        with pytest.raises(ValueError, match="a packet of 65537 bytes"):
            cipher.seal_burst(KEYS[0], 1, 0, packets, 1420)
        assert len(cipher.seal_burst(KEYS[0], 1, 0, packets[:50], 1420)) == 50


def test_only_bytes_and_keys_come_near_a_pointer(compiled: BurstCipher) -> None:
    for packet in (bytearray(8), memoryview(b"8"), "8", None):
        with pytest.raises(TypeError):
            compiled.seal_burst(KEYS[0], 1, 0, [b"", packet], 1420)  # type: ignore[list-item]
        with pytest.raises(TypeError):
            compiled.open_burst([(KEYS[0], packet)])  # type: ignore[list-item]
    for key in (None, b"key", 1):
        with pytest.raises(TypeError):
            compiled.seal_burst(key, 1, 0, [b""], 1420)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            compiled.open_burst([(key, bytes(32))])  # type: ignore[list-item]
    for job in (None, (), (KEYS[0],), (KEYS[0], bytes(32), 1)):
        with pytest.raises((TypeError, ValueError)):
            compiled.open_burst([job])  # type: ignore[list-item]
    for receiver, first in ((-1, 0), (1 << 32, 0), (0, -1), (0, 1 << 64)):
        with pytest.raises(OverflowError):
            compiled.seal_burst(KEYS[0], receiver, first, [b""], 1420)
    assert compiled.seal_burst(KEYS[0], 1, 0, [], 1420) == compiled.open_burst([]) == []


def test_a_wiped_key_seals_as_zeros_do(compiled: BurstCipher) -> None:
    key = TransportKey(bytearray(KEY))
    packets = [bytes(1420)] * 100
    before = compiled.seal_burst(key, 1, 0, packets, 1420)
    key.wipe()
    after = compiled.seal_burst(key, 1, 0, packets, 1420)
    assert after == PLAIN.seal_burst(TransportKey(bytearray(32)), 1, 0, packets, 1420)
    assert before == PLAIN.seal_burst(TransportKey(bytearray(KEY)), 1, 0, packets, 1420)


def test_bursts_of_any_length_come_back_in_order(compiled: BurstCipher) -> None:
    rng = random.Random(3)
    for _ in range(300):
        packets = [rng.randbytes(rng.choice((40, 576, 1420))) for _ in range(rng.choice((1, 33, 64, 256, 700)))]
        sealed = compiled.seal_burst(KEYS[0], 9, 1000, packets, 1420)
        assert [int.from_bytes(datagram[8:16], "little") for datagram in sealed] == [*range(1000, 1000 + len(packets))]
        opened = compiled.open_burst([(KEYS[0], datagram) for datagram in sealed])
        assert [plain[: len(packet)] for packet, plain in zip(packets, opened, strict=True) if plain] == packets


def test_two_callers_at_once_are_told_apart_or_refused(compiled: BurstCipher) -> None:
    """The cipher is one caller's; a second one may be refused, but neither gets the other's bytes."""
    packets = [[bytes([mark]) * 1420] * 400 for mark in (1, 2)]
    expected = [PLAIN.seal_burst(KEYS[0], 1, 0, burst, 1420) for burst in packets]
    wrong: list[object] = []
    done: list[int] = []

    def call(which: int) -> None:
        for _ in range(40):
            try:
                if compiled.seal_burst(KEYS[0], 1, 0, packets[which], 1420) != expected[which]:
                    wrong.append(which)
                done.append(which)
            except RuntimeError as refused:
                if "one call at a time" not in str(refused):
                    wrong.append(refused)

    callers = [threading.Thread(target=call, args=(which,)) for which in (0, 1)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong
    assert done


def test_helpers_that_are_released_in_the_midst_of_bursts_leave_at_once() -> None:
    packets = [bytes(1420)] * 256
    expected = PLAIN.seal_burst(KEYS[0], 1, 0, packets, 1420)
    for _ in range(20):
        helped = Helped()
        releasing = threading.Thread(target=helped.close)
        for turn in range(20):
            if turn == 5:
                releasing.start()
            assert helped.cipher.seal_burst(KEYS[0], 1, 0, packets, 1420) == expected
        releasing.join(WAIT_S)
        assert not any(thread.is_alive() for thread in helped.threads)
        assert helped.cipher.seal_burst(KEYS[0], 1, 0, packets, 1420) == expected, "it goes on alone"


def test_a_forked_child_has_no_helpers_and_works_alone() -> None:
    """In a process of its own: to fork with threads is what the daemon does, not what a test runner should."""
    compiled_cipher()
    code = """
import os, sys, threading
from tunnel.burst import CompiledCipher
from tunnel.primitives import Cipher, TransportKey
key, packets, cipher = TransportKey(bytearray(32)), [bytes(1420)] * 256, CompiledCipher()
helpers = [threading.Thread(target=cipher.help, daemon=True) for _ in range(3)]
for helper in helpers:
    helper.start()
expected = Cipher().seal_burst(key, 1, 0, packets, 1420)
for _ in range(50):
    assert cipher.seal_burst(key, 1, 0, packets, 1420) == expected
    child = os.fork()
    if child == 0:
        os._exit(0 if cipher.seal_burst(key, 1, 0, packets, 1420) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**os.environ, "PYTHONPATH": "."})


def test_a_tunnel_with_the_compiled_cipher_speaks_with_one_that_has_the_plain(compiled: BurstCipher) -> None:
    world, alice, bob = connected()
    alice.tunnel._common.cipher = compiled
    for sender, receiver in ((alice, bob), (bob, alice)):
        packets = [inner(20 + mark * 4, mark=mark) for mark in range(300)]
        sealed = sender.tunnel.send(receiver.name, packets, world.now)
        burst = [Received(datagram.data, sender.home) for datagram in sealed.datagrams]
        effects = receiver.tunnel.receive(burst, world.now)
        assert [packet for _, packet in effects.packets] == packets
