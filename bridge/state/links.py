"""The ledger: what links outlive the process, however that ended.

A file of fixed-size records, mapped into memory and written in place, so that a `kill -9` finds it as complete as an
orderly end does: no saving at the end, no fsync, no pause. `alias` says which links are new, have ended, entered
another TCP state, or expire much later than before; here they are written down, a bounded number at a time (`LAG_NS`,
`AT_ONCE`), so that a flood of new flows is not slowed.

A record that was torn, and one whose ground is gone (its host lives elsewhere now, the egress has another address),
fail the same check sum: both go into it. A link that has ended leaves its record behind, without the remote, until the
room is needed, so that its port rests on (RFC 6888 REQ-8).

The file belongs to one boot of the machine, whose clock its times are by. Each start reads what it finds, writes a new
file beside it and puts that in its place: being killed meanwhile costs nothing either. Nothing is opened after that.
"""

from __future__ import annotations

import logging
import mmap
import os
import stat
import struct
from array import array
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID
from zlib import crc32

from alias.ports import REST_NS
from alias.saved import saved
from alias.sessions import is_state
from alias.table import Aliases
from alias.types import COARSE_BITS, Egress, Link, Saved
from bridge.walk.crossing import Openings
from bridge.walk.interface import Interface
from wire.ipv4 import ICMP, TCP, UDP
from wire.units import SECOND_NS

log = logging.getLogger(__name__)

LAG_NS: Final = SECOND_NS // 20
AT_ONCE: Final = 128
"""So many changes are written in `LAG_NS`, less than one percent of a core; of more the rest waits for its turn."""
MOST_LINKS: Final = 7 * 65_536
"""More than there are ports on both egresses: what `max_links` may say beyond it takes no room."""
SPARE: Final = 16_384
"""Records beyond `max_links`, as many as that at most: for ports that rest."""

_HEADER = struct.Struct("<8sHHI16s")
_HEADER_BYTES = 64
_MAGIC, _VERSION = b"tapblink", 1
_BODY = struct.Struct("<IIIHHHBBB")  # step of expiry, inside, remote, their ports and the outside port, protocol, ...
_CHECK = struct.Struct("<I")
_RECORD_BYTES = _BODY.size + _CHECK.size
_EGRESS, _OTHERS, _ENDED, _STATE_SHIFT = 1, 2, 4, 4  # of the byte behind the protocol
_WITH_PORTS = (TCP, UDP, ICMP)
_PORTS = 65_536
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class _Found(NamedTuple):
    """A record that was read; `body` and `check` as they stood there."""

    kept: Saved
    has_ended: bool
    body: bytes
    check: int


class Ledger:
    """Keeps a file in step with the links. `OSError` where it cannot be made.

    `restored`: links that were taken up.
    """

    def __init__(
        self, path: Path, aliases: Aliases, interfaces: Mapping[str, Interface], openings: Openings, now: int
    ) -> None:
        self.path = path
        self.restored = 0
        self._aliases = aliases
        self._openings = openings
        self._interfaces = interfaces
        self._tap0 = interfaces.get("tap0")
        limit = min(aliases.settings.max_links, MOST_LINKS)
        self._slots = limit + min(limit, SPARE)
        self._fresh = 0  # the first slot that nobody has had
        self._freed: deque[int] = deque()
        self._places: dict[tuple[Egress, int], array[int]] = {}  # by outside port: the slot and one, 0 for none
        self._others: dict[tuple[Egress, int, int], int] = {}  # slots of address-only links, by remote
        self._began_ns, self._left = now, AT_ONCE  # of the changes of `LAG_NS` those that may still be written
        self._is_told = False
        boot = UUID(_BOOT_ID.read_text().strip()).bytes
        found = _read(path, boot, 4 * self._slots)
        fresh = path.with_name(path.name + ".new")
        fresh.unlink(missing_ok=True)  # whoever's it is: it may have other names, or be another gateway's memory
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            size = _HEADER_BYTES + self._slots * _RECORD_BYTES
            os.posix_fallocate(fd, 0, size)  # a page that is missing when it is written to would end the process
            self._map = mmap.mmap(fd, size)
            self._map.madvise(mmap.MADV_DONTFORK)  # children that answer questions have links of their own
            self._map[: _HEADER.size] = _HEADER.pack(_MAGIC, _VERSION, _RECORD_BYTES, self._slots, boot)
            aliases.changes.want(True)
            self._restore(found or [], now)
            self.catch_up(now)
            fresh.replace(path)
        except OSError:
            fresh.unlink(missing_ok=True)  # what a full disk has no room for
            raise
        finally:
            os.close(fd)

    def close(self) -> None:
        """Write what is left to write; the file stays."""
        self.catch_up()
        self._map.close()

    # Time

    def next_deadline(self) -> int | None:
        """When `tick` has something to do; None while nothing has changed."""
        if not self._aliases.changes:
            return None
        return self._began_ns if self._left else self._began_ns + LAG_NS

    def tick(self, now: int) -> None:
        """Write down what has changed: at once, or in a flood as much as may be in `LAG_NS`."""
        changed = self._aliases.changes
        if not changed:
            return
        if now >= self._began_ns + LAG_NS:
            self._began_ns, self._left = now, AT_ONCE
        # Links that ended wait there too: there are never more than were alive at once, and as many again.
        most = self._left if len(changed) <= self._slots else len(changed)
        self._left = max(self._left - len(changed), 0)
        self._write(most, now)

    def catch_up(self, now: int | None = None) -> None:
        """Write down all that has changed, on an operator's word or before the end."""
        self._write(len(self._aliases.changes), self._aliases.latest_ns if now is None else now)

    # Writing

    def _write(self, limit: int, now: int) -> None:
        grounds: dict[tuple[Egress, int], int | None] = {}  # hosts are few where links are many; a reload moves them
        for link in self._aliases.changes.take(limit):
            host = link.egress, link.inside
            if host not in grounds:
                grounds[host] = self._ground(*host)
            self._write_link(link, grounds[host], now)

    def _write_link(self, link: Link, ground: int | None, now: int) -> None:
        slot = self._slot(link)
        if not link.expires_ns or ground is None:
            if slot is None:
                return
            ended = saved(link)._replace(remote=0, remote_port=0, expires_ns=now + REST_NS)
            self._put(slot, ended, 0 if ground is None else ground, _ENDED)
            self._freed.append(slot)
            self._keep(link, 0)
            return
        if slot is None:
            if self._fresh < self._slots:  # records of what has ended stay as long as they can
                slot = self._fresh
                self._fresh += 1
            elif self._freed:
                slot = self._freed.popleft()
            else:
                self._tell_full()
                return
            self._keep(link, slot + 1)
        self._put(slot, saved(link), ground)

    def _put(self, slot: int, kept: Saved, ground: int, more: int = 0) -> None:
        body = _BODY.pack(
            kept.expires_ns >> COARSE_BITS,
            kept.inside,
            kept.remote,
            kept.inside_port,
            kept.outside_port,
            kept.remote_port,
            kept.protocol,
            kept.egress | (_OTHERS if kept.has_others else 0) | more | kept.state << _STATE_SHIFT,
            kept.scale,
        )
        at = _HEADER_BYTES + slot * _RECORD_BYTES
        self._map[at : at + _RECORD_BYTES] = body + _CHECK.pack(crc32(body, ground))

    def _slot(self, link: Link) -> int | None:
        if link.protocol not in _WITH_PORTS:
            return self._others.get((link.egress, link.protocol, link.remote))
        places = self._places.get((link.egress, link.protocol))
        slot = 0 if places is None else places[link.outside_port]
        return slot - 1 if slot else None

    def _keep(self, link: Link, place: int) -> None:
        """`place`: the slot and one; 0 for none any more."""
        if link.protocol in _WITH_PORTS:
            key = link.egress, link.protocol
            if key not in self._places:
                self._places[key] = array("I", bytes(4 * _PORTS))
            self._places[key][link.outside_port] = place
        elif place:
            self._others[link.egress, link.protocol, link.remote] = place - 1
        else:
            del self._others[link.egress, link.protocol, link.remote]

    def _tell_full(self) -> None:
        if not self._is_told:
            self._is_told = True
            log.warning("%s has no room for as many links as are allowed by now: restart to have it grow", self.path)

    # What a link rests on

    def _ground(self, egress: Egress, inside: int) -> int | None:
        """What must be the same when a link is taken up: who has its inside address, and the address that hides it;
        None where a host of that address may have no links. The check sums of its records begin with it."""
        hides = self._interfaces.get(egress.label)
        outside = 0 if hides is None else hides.address  # of now: a reload may give tap1 another one
        side = self._openings.side_of(inside)
        behind = self._openings.behind(inside)
        if not outside or side is None or behind is None:
            return None
        if side.interface is self._tap0 and not self._tap0.is_on_link(inside):
            return None
        return crc32(f"{behind} {outside}".encode())

    # Reading

    def _restore(self, found: list[_Found], now: int) -> None:
        grounds: dict[tuple[Egress, int], int | None] = {}
        resting: list[tuple[int, Saved]] = []
        for kept, has_ended, body, check in sorted(found, key=lambda one: one.kept.expires_ns, reverse=True):
            host = kept.egress, kept.inside
            if host not in grounds:
                grounds[host] = self._ground(*host)
            ground = grounds[host]
            if ground is None or crc32(body, ground) != check:
                continue
            if has_ended:
                resting.append((kept.expires_ns, kept))
                continue
            if self._aliases.restore(kept, now) is not None:
                self.restored += 1
            else:
                resting.append((kept.expires_ns + REST_NS, kept))
        for until_ns, kept in sorted(resting):
            if until_ns > now:
                self._aliases.rest(kept, min(until_ns, now + REST_NS))


def beside(socket_path: Path) -> Path:
    """Where the ledger of a gateway is that has no other place for it: `control.links` beside `control.sock`; of any
    other name nothing is left out, or `site.a` and `site.b` would share one."""
    return socket_path.with_name(socket_path.name.removesuffix(".sock") + ".links")


def open_ledger(
    path: Path, aliases: Aliases, interfaces: Mapping[str, Interface], openings: Openings, now: int
) -> Ledger | None:
    """The ledger, with what it held taken up; None where it cannot be had, which is told once and stops nothing."""
    try:
        ledger = Ledger(path, aliases, interfaces, openings, now)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        aliases.changes.want(False)
        with suppress(OSError):
            path.unlink()  # or the start after this one would take up links that have ended in between
        log.warning("%s: %s; links will not outlive a restart", path, why)
        return None
    if ledger.restored:
        log.info("%d links go on from before the restart", ledger.restored)
    return ledger


def _header_fault(header: bytes, boot: bytes) -> str:
    if len(header) < _HEADER_BYTES:
        return "it is cut off"
    magic, version, record_bytes, _, of_boot = _HEADER.unpack_from(header)
    if magic != _MAGIC:
        return "it is no ledger of links"
    if (version, record_bytes) != (_VERSION, _RECORD_BYTES):
        return "another version wrote it"
    return "" if of_boot == boot else "the machine was started anew since"


def _read(path: Path, boot: bytes, most: int) -> list[_Found] | None:
    """The records of a file, at most so many; None where there is no ledger of this boot. Whatever is wrong with the
    file, it is told in a line and begun anew."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.info("%s: %s; links begin anew", path, error.strerror)
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        log.info("%s: it is no file; links begin anew", path)
        return None
    with open(fd, "rb") as file:
        fault = _header_fault(file.read(_HEADER_BYTES), boot)
        if fault:
            log.info("%s: %s; links begin anew", path, fault)
            return None
        records = file.read(most * _RECORD_BYTES)
    found = []
    for at in range(0, len(records) - _RECORD_BYTES + 1, _RECORD_BYTES):
        body = records[at : at + _BODY.size]
        if not any(body):
            continue
        kept, has_ended = _kept(body)
        if kept.protocol != TCP or is_state(kept.state):
            found.append(_Found(kept, has_ended, body, *_CHECK.unpack_from(records, at + _BODY.size)))
    return found


def _kept(body: bytes) -> tuple[Saved, bool]:
    """A record's link, and whether that has ended."""
    step, inside, remote, inside_port, outside_port, remote_port, protocol, kind, scale = _BODY.unpack(body)
    return Saved(
        Egress(kind & _EGRESS),
        protocol,
        inside,
        inside_port,
        outside_port,
        remote,
        remote_port,
        kind >> _STATE_SHIFT,
        scale,
        bool(kind & _OTHERS),
        (step + 1 << COARSE_BITS) - 1,
    ), bool(kind & _ENDED)
