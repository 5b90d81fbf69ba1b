"""The link file: a gateway that was killed at any moment leaves one, and the next gateway restores its links."""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import stat
import struct
from collections.abc import Callable
from itertools import count
from pathlib import Path
from uuid import UUID
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alias.types import COARSE_BITS, Egress, Link
from bridge.config.into_routes import routes_from
from bridge.config.into_walk import gateway_settings
from bridge.config.load import load
from bridge.state.links import AT_ONCE, LAG_NS, LinkFile, link_file_of, open_link_file
from bridge.walk.gateway import Gateway
from tests.conformance.harness import (
    ADDRESS_O,
    ADDRESS_V,
    CONFIGURATION,
    ICMP,
    IP,
    MAC_A,
    MAC_L,
    TCP,
    UDP,
    A,
    B,
    E,
    Ether,
    Scenario,
)
from wire.units import SECOND_NS, address_int

Names = set[tuple[int, int, int, int, int, int]]
COPIES = count()
HEADER_BYTES = 64
RECORD_BYTES = 25
STEP_NS = 1 << COARSE_BITS


def keep(gateway: Gateway, path: Path, now: int) -> LinkFile:
    """Give a gateway a link file, as the daemon does."""
    kept = open_link_file(path, gateway.aliases, gateway.interfaces, gateway.decision.crossing, now)
    assert kept is not None
    gateway.ledger = kept
    return kept


class World(Scenario):
    """A gateway with a link file."""

    def __init__(
        self, folder: Path, file: Path | None = None, toml: str = "", now: int | None = None, **more: object
    ) -> None:
        super().__init__(folder, toml=toml, **more)  # type: ignore[arg-type] # as the scenario takes them
        self.now = self.now if now is None else now
        self.file = folder / "links" if file is None else file
        self.ledger = keep(self.gateway, self.file, self.now)

    def killed(self, toml: str = "", gap_s: float = 0, **more: object) -> World:
        """The gateway after this one, which was killed just now: the file is what it was."""
        copy = self.file.with_name(f"copy{next(COPIES)}")
        shutil.copyfile(self.file, copy)
        return World(self.path.parent, copy, toml, self.now + round(gap_s * SECOND_NS), **more)

    @property
    def names(self) -> Names:
        """Every link, static ones aside, by who it is inside and outside."""
        return {
            (link.egress, link.protocol, link.inside, link.inside_port, link.outside_port, link.remote)
            for link in self.gateway.aliases.links(self.now)
            if not link.is_static
        }

    def udp(self, source: str = A, port: int = 5000) -> int:
        """A datagram from inside; the outside port."""
        out = self.inside(IP(src=source, dst=E) / UDP(sport=port, dport=53) / b"x")
        return int(out[-1].ip.sport)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """With two links of different hosts and one port."""
    made = World(tmp_path)
    assert made.udp(A) != made.udp(B)
    made.advance(1)
    return made


def test_every_link_is_taken_up_under_its_outside_name(world: World) -> None:
    """U3, U5: and what comes from outside first is delivered."""
    after = world.killed(gap_s=2)
    assert after.names == world.names
    assert after.ledger.restored == 2
    for link in list(after.gateway.aliases.links(after.now)):
        out = after.outside(IP(src=E, dst=ADDRESS_O) / UDP(sport=53, dport=link.outside_port) / b"y")
        assert out[-1].port == "L"
        assert (address_int(out[-1].ip.dst), out[-1].ip.dport) == (link.inside, 5000)


def test_it_is_taken_up_again_and_again(world: World) -> None:
    after = world
    for _ in range(5):
        after = after.killed(gap_s=1)
    assert after.names == world.names


def test_an_established_connection_is_written_down_as_one(tmp_path: Path) -> None:
    """T5: soon after its handshake, and after two hours of it."""
    world = World(tmp_path)
    world.inside(IP(src=A, dst=E) / TCP(sport=5000, dport=80, flags="S", seq=1))
    world.advance(0.2)
    world.outside(IP(src=E, dst=ADDRESS_O) / TCP(sport=80, dport=5000, flags="SA", seq=1, ack=2))
    world.advance(0.1)
    assert [link.state for link in world.killed().gateway.aliases.links(world.now)] == ["EST"]
    world.advance(7000)
    world.inside(IP(src=A, dst=E) / TCP(sport=5000, dport=80, flags="A", seq=2, ack=2))
    world.advance(0.1)
    (link,) = world.gateway.aliases.links(world.now)
    (again,) = world.killed().gateway.aliases.links(world.now)
    assert link.expires_ns <= again.expires_ns <= link.expires_ns + STEP_NS


def test_idle_links_end_at_their_time_however_often_it_restarts(world: World) -> None:
    """U5: a restart is no packet; what is not written down exactly is half a minute."""
    after, restarts = world, 0
    while after.names:
        after = after.killed(gap_s=10)
        restarts += 1
    assert 30 <= restarts <= 34, "300 s and the rest of a step, not again and again"


def test_a_flush_is_written_at_once(world: World) -> None:
    assert world.gateway.flush_links({address_int(A)}) == 1
    assert world.killed().names == world.names
    world.gateway.flush_links()
    assert world.killed().names == set()
    assert address_int(E).to_bytes(4, "little") not in world.file.read_bytes(), "whom they talked to is forgotten"


def test_a_reload_that_ends_links_is_written(world: World) -> None:
    """M1: a forward takes a link's port."""
    forward = f'[[alias.forward]]\non = "tap1"\nprotocol = "udp"\noutside_port = 5000\ninside = "{B}:53"\n'
    world.reload(forward)
    world.advance(0.1)
    assert len(world.names) == 1
    assert world.killed(forward).names == world.names


def test_ports_that_rest_go_on_resting(world: World) -> None:
    """C3: 120 s from the end of the link, and the rest of a step."""
    world.gateway.flush_links()
    after = world.killed(gap_s=100)
    assert after.udp("192.168.200.12", 5000) != 5000
    assert world.killed(gap_s=155).udp("192.168.200.12", 5000) == 5000


def test_only_what_is_private_to_us_may_read_it(world: World) -> None:
    assert stat.S_IMODE(world.file.stat().st_mode) == 0o600


def test_remotes_of_datagrams_are_not_written_down_unless_filtering_needs_them(world: World, tmp_path: Path) -> None:
    remote = address_int(E).to_bytes(4, "little")
    assert remote not in world.file.read_bytes()
    (tmp_path / "other").mkdir()
    filtering = World(tmp_path / "other", toml='[alias]\nfiltering = "address-dependent"\n')
    filtering.udp()
    filtering.advance(1)
    assert remote in filtering.file.read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        (f'address = "{ADDRESS_O}/24"', 'address = "192.168.1.3/24"'),  # another name outside
        ('address = "192.168.200.2/24"', 'address = "192.168.201.2/24"'),  # another LAN
    ],
)
def test_links_whose_ground_is_gone_are_not_taken_up(world: World, change: tuple[str, str]) -> None:
    """U7, D9: of the egress whose address changed, or of hosts that are no longer there."""
    without_arp = (f'[tap0.arp]\n"{A}" = "{MAC_A}"\n"{B}" = "02:aa:00:00:00:0b"\n', "")
    assert world.killed(replace=(without_arp,)).names == world.names
    assert world.killed(replace=(without_arp, change)).names == set()


def test_links_of_the_egress_that_stayed_live_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.udp()
    world.inside(IP(src=A, dst="8.8.8.8") / UDP(sport=5000, dport=53))
    world.advance(1)
    after = world.killed(replace=((f'address = "{ADDRESS_V}"', 'address = "192.168.192.209"'),))
    assert {name[0] for name in world.names} == set(Egress)
    assert {name[0] for name in after.names} == {Egress.TAP1}


def test_fewer_links_than_before_are_bounded(world: World) -> None:
    after = world.killed("[alias]\nmax_links = 1\n")
    assert len(after.names) == 1
    assert len(world.killed("[alias]\nmax_links_per_host = 1\n").names) == 2


def test_with_more_links_than_it_was_made_for_it_says_so_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    small = world.killed("[alias]\nmax_links = 2\n")
    small.reload("[alias]\nmax_links = 100\n")
    for port in range(6000, 6050):
        small.udp(A, port)
    small.advance(1)
    assert [record.message for record in caplog.records].count(
        f"{small.file} has no room for as many links as are allowed by now: restart to have it grow"
    ) == 1
    assert small.killed().names <= small.names


def test_slots_of_ended_links_are_used_again(tmp_path: Path) -> None:
    """C1: ten times as many links as the file has room for, one after the other."""
    world = World(tmp_path, toml="[alias]\nmax_links = 20\n")
    for turn in range(20):
        for port in range(6000 + 20 * turn, 6020 + 20 * turn):
            world.udp(A, port)
        world.advance(1)
        assert world.killed("[alias]\nmax_links = 20\n").names == world.names
        world.gateway.flush_links()
    assert world.file.stat().st_size == HEADER_BYTES + 40 * RECORD_BYTES


def test_a_flood_is_written_a_bounded_number_at_a_time(tmp_path: Path) -> None:
    """A link that is not written yet waits its turn; the file holds a part of the truth at any time."""
    world = World(tmp_path)
    for port in range(10_000, 10_000 + 4 * AT_ONCE):
        world.udp(A, port)
    world.now += LAG_NS
    world.gateway.tick(world.now)
    assert len(world.killed().names) == AT_ONCE
    world.advance(1)
    assert world.killed().names == world.names


def test_nothing_is_due_while_there_is_no_link(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.advance(3600)
    assert world.gateway.next_deadline() is None


def _other_version(data: bytearray) -> None:
    data[8] ^= 0xFF


def _other_boot(data: bytearray) -> None:
    data[20] ^= 0xFF


def _other_magic(data: bytearray) -> None:
    data[0] ^= 0xFF


def _cut(data: bytearray) -> None:
    del data[40:]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_other_version, "another version wrote it"),
        (_other_boot, "the machine was started anew since"),
        (_other_magic, "it is no link file"),
        (_cut, "it is cut off"),
    ],
)
def test_a_file_that_is_not_ours_is_told_in_one_line_and_begun_anew(
    world: World, spoil: Callable[[bytearray], None], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(world.file.read_bytes())
    spoil(data)
    world.file.write_bytes(data)
    caplog.set_level(logging.INFO)
    after = world.killed()
    assert [record.message for record in caplog.records] == [f"{after.file}: {says}; links begin anew"]
    assert after.names == set()
    after.udp()
    after.advance(1)
    assert after.killed().names == after.names


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nowhere"])
def test_what_is_no_file_stops_nothing(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "links"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "nowhere")
    world = Scenario(tmp_path)
    kept = open_link_file(path, world.gateway.aliases, world.gateway.interfaces, world.gateway.decision.crossing, 0)
    assert (kept is None) == (kind == "folder"), "the others are replaced"
    if kept is None:
        assert "links will not outlive a restart" in caplog.text
        world.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=53))
        assert not world.gateway.aliases.changes, "nobody would take it out"


def test_a_folder_that_is_not_there_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gateway = Scenario(tmp_path).gateway
    path = tmp_path / "nowhere" / "links"
    assert open_link_file(path, gateway.aliases, gateway.interfaces, gateway.decision.crossing, 0) is None
    assert "No such file or directory; links will not outlive a restart" in caplog.text


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_torn_record_is_ignored_and_costs_no_other(world: World, data: st.DataObject) -> None:
    """Between two bytes of a record the process was killed: what is there is part old, part new."""
    image = bytearray(world.file.read_bytes())
    slot = data.draw(st.integers(0, 1))
    at = HEADER_BYTES + slot * RECORD_BYTES
    torn = data.draw(st.integers(1, RECORD_BYTES - 1))
    other = data.draw(st.binary(min_size=torn, max_size=torn))
    before = bytes(image[at : at + RECORD_BYTES])
    image[at : at + torn] = other
    spoiled = world.file.with_name("spoiled")
    spoiled.write_bytes(image)
    after = World(world.path.parent, spoiled, now=world.now)
    if bytes(image[at : at + RECORD_BYTES]) != before:
        assert after.names < world.names
        assert len(after.names) == 1


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=400), st.booleans(), st.integers(0, 500))
def test_garbage_never_raises(world: World, garbage: bytes, has_header: bool, length: int) -> None:
    head = world.file.read_bytes()[:HEADER_BYTES] if has_header else b""
    spoiled = world.file.with_name("spoiled")
    spoiled.write_bytes((head + garbage)[:length])
    assert World(world.path.parent, spoiled, now=world.now).names == set()


def _gateway(folder: Path) -> Gateway:
    (folder / "offload.txt").write_text("203.0.113.0/24\n")
    (folder / "gateway.toml").write_text(CONFIGURATION + "[alias]\nmax_links = 40\nmax_links_per_host = 30\n")
    config = load(folder / "gateway.toml", "replay")
    return Gateway(gateway_settings(config), routes_from(config), random.Random(0))


def _frame(host: int, port: int, kind: int) -> bytes:
    source, mac = ((A, MAC_A), (B, "02:aa:00:00:00:0b"))[host]
    remote = (E, "8.8.8.8")[kind & 1]
    packets = (
        UDP(sport=port, dport=53),
        TCP(sport=port, dport=80, flags="S"),
        TCP(sport=port, dport=80, flags="FA"),
        ICMP(id=port),
    )
    return bytes(Ether(src=mac, dst=MAC_L) / IP(src=source, dst=remote) / packets[kind >> 1])


FRAMES = [[[_frame(host, port, kind) for kind in range(8)] for port in range(5000, 5020)] for host in range(2)]
_steps = st.one_of(
    st.tuples(st.just("frame"), st.integers(0, 1), st.integers(0, 19), st.integers(0, 7)),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 40, 100_000, 250_000])),
    st.tuples(st.just("flush"), st.integers(0, 1)),
    st.tuples(st.just("kill")),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(_steps, max_size=80))
def test_killed_at_any_point_it_goes_on_with_every_link_that_was_written(
    tmp_path: Path, script: list[tuple[object, ...]]
) -> None:
    """U3, C1: a copy of the file at any moment; every link older than the lag is there under the same outside name, no
    port has two owners, nothing is there that was ended on an operator's word."""
    now = SECOND_NS * 1000
    path = tmp_path / "links"
    path.unlink(missing_ok=True)
    gateway = _gateway(tmp_path)
    keep(gateway, path, now)
    for step in script:
        if step[0] == "frame":
            _, host, port, kind = step
            gateway.receive("tap0", FRAMES[host][port][kind], now)  # type: ignore[index] # as the strategies say
        elif step[0] == "flush":
            gateway.flush_links({address_int((A, B)[step[1]])})  # type: ignore[index] # likewise
        elif step[0] == "wait":
            end = now + step[1] * SECOND_NS // 1000  # type: ignore[operator] # likewise
            while (due := gateway.next_deadline()) is not None and due <= end:
                now = max(now, due)
                gateway.tick(now)
            now = end
        else:
            waiting = {_name(link) for link in gateway.aliases.changes}
            live = {_name(link): link for link in gateway.aliases.links(now)}
            gateway = _gateway(tmp_path)
            keep(gateway, path, now)
            again = {_name(link): link for link in gateway.aliases.links(now)}
            assert again.keys() - waiting == live.keys() - waiting
            assert len({(one[0], one[1], one[4], one[5]) for one in again}) == len(again)
            for name in again.keys() & live.keys() - waiting:
                assert 0 <= again[name].expires_ns - live[name].expires_ns <= STEP_NS


def _name(link: Link) -> tuple[int, int, int, int, int, int]:
    return link.egress, link.protocol, link.inside, link.inside_port, link.outside_port, link.remote


def test_the_boot_is_the_kernels(world: World) -> None:
    boot = UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    assert struct.unpack_from("<8sHHI16s", world.file.read_bytes())[-1] == boot.bytes


def test_links_under_an_address_that_a_reload_gave_tap1_are_taken_up_under_it_alone(world: World) -> None:
    """U3, U5: the links of the address before have ended."""
    renumbered = (f'address = "{ADDRESS_O}/24"', 'address = "192.168.1.7/24"')
    world.reload(replace=(renumbered,))
    assert not world.names
    world.udp(A)
    world.advance(1)
    assert world.names
    assert world.killed(replace=(renumbered,)).names == world.names
    assert not world.killed().names


def test_what_lies_beside_it_is_replaced_and_not_written_to(world: World, tmp_path: Path) -> None:
    """A second gateway's memory, while it starts; or whatever has another name elsewhere."""
    (tmp_path / "precious").write_text("kept")
    world.file.with_name("links.new").hardlink_to(tmp_path / "precious")
    assert keep(world.gateway, world.file, world.now).path.exists()
    assert (tmp_path / "precious").read_text() == "kept"
    assert not world.file.with_name("links.new").exists()


def test_a_start_that_has_no_room_leaves_nothing_for_the_one_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The links of the run before would come back when their ports are others'."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    gateway = world.gateway
    monkeypatch.setattr("bridge.state.links.os.posix_fallocate", full)
    assert open_link_file(world.file, gateway.aliases, gateway.interfaces, gateway.decision.crossing, world.now) is None
    assert not list(world.file.parent.glob("links*"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**32 - 1) | st.integers(0, 3),
            st.integers(0, 2**32 - 1) | st.just(address_int(E)),
            *3 * [st.integers(0, 65535) | st.just(0)],
            st.sampled_from([6, 17, 1, 47, 0, 255]),
            st.integers(0, 255),
            st.integers(0, 255),
        ),
        max_size=20,
    )
)
def test_records_that_a_captured_gateway_makes_up_stop_no_start_and_stay_bounded(
    world: World, records: list[tuple[int, ...]]
) -> None:
    """It knows what goes into the check sum."""
    image = bytearray(world.file.read_bytes()[:HEADER_BYTES])
    inside = address_int(A)
    for step, *fields in records:
        body = struct.pack("<IIIHHHBBB", step, inside, *fields)
        context = world.ledger._context(Egress(fields[-2] & 1), inside)
        assert context is not None
        image += body + struct.pack("<I", crc32(body, context))
    made_up = world.file.with_name("made-up")
    made_up.write_bytes(image)
    after = World(world.path.parent, made_up, now=world.now)
    assert len(after.names) <= len(records)
    after.udp()
    for link in list(after.gateway.aliases.links(after.now)):
        assert link.expires_ns <= after.now + 3 * 3600 * SECOND_NS or link.is_static
    after.advance(1)
    assert after.killed().names == after.names
    after.advance(4 * 3600)
    assert after.names == set()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("control.sock", "control.links"), ("site.a", "site.a.links"), ("site.b", "site.b.links"), ("gw", "gw.links")],
)
def test_each_control_socket_has_a_link_file_of_its_own(name: str, expected: str) -> None:
    assert link_file_of(Path("/run/tapbridge") / name) == Path("/run/tapbridge") / expected
