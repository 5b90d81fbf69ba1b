"""Policing chooses the frames to be walked when more come than can be: both implementations, frame by frame."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from bridge.ports.policing import (
    AGAIN_FRAMES,
    BEHIND_FRAMES,
    LEAST,
    MOST,
    SAVED,
    SHARE_FRAMES,
    PlainPolice,
    Police,
    Senders,
)
from flow.table import Punt
from tests.compiled import compiled_police
from wire import ethernet, ipv4

US = bytes.fromhex("02000000c802")
BURST = 64
MS = 1_000_000
SEED = 7


def frame(sender: int, *, address: int = 0x0A000001) -> bytes:
    """A datagram of a station."""
    header = ipv4.header(address, 0x08080808, ipv4.UDP, 8, ttl=64)
    return US + bytes([2]) + sender.to_bytes(5, "big") + ethernet.IPV4_TYPE + header + bytes(8)


FLOOD, OTHER = frame(1), frame(2)
Make = Callable[..., Police]


@pytest.fixture(params=["plain", "compiled"])
def make(request: pytest.FixtureRequest) -> Make:
    kind = PlainPolice if request.param == "plain" else compiled_police()

    def police(senders: Senders = Senders.STATIONS, link_bytes: int = 14) -> Police:
        return kind(senders, link_bytes, SEED)

    return police


def full_burst(police: Police, frames: list[bytes], now: int = 0, punt: Punt = Punt.UNKNOWN) -> list[bool]:
    """A burst that leaves frames behind."""
    admitted = [police.admits(one, punt) for one in frames]
    police.ended(len(frames), False, now)
    return admitted


def overload(police: Police, frames: list[bytes], *, until: int = LEAST) -> None:
    """Bursts that never empty the queue, until the quota is down."""
    for _ in range(10_000):
        if police.quota <= until:
            return
        full_burst(police, frames)
    raise AssertionError("the quota does not fall")


def test_a_port_that_keeps_up_is_never_policed(make: Make) -> None:
    police = make()
    for number in range(1000):
        assert all(police.admits(FLOOD, Punt.UNKNOWN) for _ in range(BURST))
        police.ended(BURST, number % (BEHIND_FRAMES // BURST) == 0, number * MS)
        assert police.quota == MOST


def test_a_port_that_is_behind_walks_less_and_less_but_never_nothing(make: Make) -> None:
    police = make()
    quotas = []
    for _ in range(200):
        full_burst(police, [FLOOD] * BURST)
        quotas.append(police.quota)
    assert quotas.index(MOST * 3 // 4) == BEHIND_FRAMES // BURST - 1
    assert quotas.index(MOST * 9 // 16) == (BEHIND_FRAMES + AGAIN_FRAMES) // BURST - 1
    assert quotas[-1] == LEAST
    walked = sum(sum(full_burst(police, [FLOOD] * BURST)) for _ in range(64))
    assert walked == pytest.approx(64 * LEAST, abs=SAVED)


def test_the_quota_rises_by_one_in_a_millisecond_that_ends_with_an_empty_queue(make: Make) -> None:
    police = make()
    overload(police, [FLOOD] * BURST)
    police.ended(1, True, 0)
    assert police.quota == LEAST
    for now_ms in range(1, 11):
        police.ended(1, True, now_ms * MS)
        police.ended(1, True, now_ms * MS)
    assert police.quota == LEAST + 10
    police.ended(1, False, 500 * MS)
    assert police.quota == LEAST + 10, "it was behind meanwhile, as far as we know"
    police.ended(1, True, 1000 * MS)
    assert police.quota == MOST


def test_who_floods_has_spent_his_share_and_another_station_is_not_touched(make: Make) -> None:
    police = make()
    overload(police, [FLOOD] * BURST)
    admitted = {FLOOD: [], OTHER: []}  # type: dict[bytes, list[bool]]
    for _ in range(300):
        for one in [*[FLOOD] * (BURST - 1), OTHER]:
            admitted[one].append(police.admits(one, Punt.UNKNOWN))
        police.ended(BURST, False, 0)
    assert all(admitted[OTHER])
    assert sum(admitted[FLOOD]) <= 300 * LEAST


def test_a_station_with_all_addresses_of_the_lan_is_one_sender(make: Make) -> None:
    police = make()
    crowd = [frame(1, address=0xC0A8C800 + number % 254) for number in range(BURST)]
    overload(police, crowd)
    assert all(full_burst(police, [OTHER, *crowd[1:]])[0] for _ in range(200))


def test_elsewhere_senders_are_addresses_and_what_is_not_ip_is_a_station(make: Make) -> None:
    police = make(Senders.ADDRESSES)
    router = 9
    flood = [frame(router, address=0x01010101)] * (BURST - 2)
    overload(police, flood)
    for _ in range(100):
        assert all(full_burst(police, [frame(router, address=0x02020202), arp(router, 0x03030303), *flood])[:2])
        full_burst(police, flood)


def test_what_the_router_answers_is_not_touched_by_a_flood_from_random_addresses(make: Make) -> None:
    """Where its MAC address is not known any more, everybody is without the ISP."""
    police, rng = make(Senders.ADDRESSES), random.Random(5)
    answer = arp(9, 0x03030303)
    flood = [frame(9, address=rng.randrange(1 << 32)) for _ in range(4000)]
    overload(police, flood)
    for number in range(2000):
        if number % 128 == 0:
            assert police.admits(answer, Punt.ETHERNET)
        full_burst(police, [rng.choice(flood) for _ in range(BURST)])


def arp(station: int, address: int) -> bytes:
    """An ARP request of a station, or one in its name."""
    mac = bytes([2]) + station.to_bytes(5, "big")
    return US + mac + ethernet.ARP_TYPE + bytes(8) + mac + address.to_bytes(4, "big") + bytes(10)


def test_random_strangers_share_and_known_stations_are_not_touched(make: Make) -> None:
    """Random MAC addresses fill every place of strangers; also under the addresses of stations that are known."""
    police, rng = make(), random.Random(3)
    network, slot = 0xC0A8C800, 3
    words = memoryview(bytearray(256 * 32)).cast("Q")
    words[4 * slot] = 2 << 40 | 2 | 5 << 48
    police.know(network, words)
    known, asks = frame(2, address=network + slot), arp(2, network + slot)
    strangers = [frame(rng.randrange(1 << 40), address=network + slot) for _ in range(2000)]
    strangers += [arp(rng.randrange(1 << 40), network + rng.randrange(256)) for _ in range(2000)]
    stranger = frame(77, address=network + 77)
    overload(police, strangers)
    passed = 0
    for number in range(4000):
        burst = [rng.choice(strangers) for _ in range(BURST - 1)]
        if number % 16 == 0:
            assert police.admits(known if number % 32 else asks, Punt.UNKNOWN)
        full_burst(police, burst)
        passed += police.admits(stranger, Punt.UNKNOWN)
        police.ended(1, False, 0)
    assert passed > 4000 * LEAST / BURST / 4, "a station that we do not know yet gets through like the strangers"


def test_flows_that_are_due_for_a_walk_count_apart(make: Make) -> None:
    police = make()
    overload(police, [FLOOD] * BURST)
    for _ in range(200):
        full_burst(police, [FLOOD] * (BURST - 1))
        assert police.admits(FLOOD, Punt.OUTDATED)
        police.ended(1, False, 0)


def test_frames_of_any_length_are_judged(make: Make) -> None:
    for link_bytes in (0, 14):
        police = make(Senders.ADDRESSES, link_bytes)
        for length in range(64):
            assert police.admits(FLOOD[:length], Punt.ETHERNET)


@pytest.mark.parametrize("senders", list(Senders))
@pytest.mark.parametrize("link_bytes", [0, 14])
@pytest.mark.parametrize("seed", range(4))
def test_both_implementations_decide_the_same(senders: Senders, link_bytes: int, seed: int) -> None:
    plain, compiled = PlainPolice(senders, link_bytes, seed), compiled_police()(senders, link_bytes, seed)
    rng, now = random.Random(seed), 0
    weights = [rng.random() ** 8 for _ in range(40)]
    words = memoryview(bytearray(rng.randbytes(256 * 32))).cast("Q")
    for police in (plain, compiled):
        police.know(100, words)
    crowd = []
    for number in range(len(weights)):
        address, station = rng.randrange(400), rng.randrange(1 << 40)
        if number % 2 and 100 <= address < 356:
            words[4 * (address - 100)] = 2 << 40 | station | rng.randrange(8) << 48
        made = rng.choice((frame(station, address=address), arp(station, address)))
        crowd.append(made[: rng.choice((64, 64, 64, 33, 20))])
    punts = [Punt.UNKNOWN, Punt.OUTDATED, Punt.ETHERNET]
    for step in range(2000):
        size = rng.randrange(1, BURST + 1)
        for one in rng.choices(crowd, weights, k=size):
            punt = rng.choice(punts)
            assert plain.admits(one, punt) == compiled.admits(one, punt)
        is_empty = rng.random() < (0.002 if step % 1000 < 600 else 0.5)
        plain.ended(size, is_empty, now)
        compiled.ended(size, is_empty, now)
        assert plain.quota == compiled.quota
        now += rng.randrange(3 * MS)
    assert SHARE_FRAMES < 2000
