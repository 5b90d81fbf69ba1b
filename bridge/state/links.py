"""The link file: NAT links that outlive the process, however it ended.

The file holds fixed-size records. It is mapped into memory and written in place, so that a `kill -9` leaves it as
complete as an orderly end does: nothing is saved at the end, and nothing waits for a disk. `alias` lists the links that
are new, have ended, have entered another TCP state, or expire much later than before. The link file writes them down, a
bounded number at a time (`LAG_NS`, `AT_ONCE`), so that it never slows a flood of new flows.

The CRC covers the record and the context it depends on (owner of the inside address, outside address), so torn and
outdated records are both rejected. A link that has ended leaves its record behind, without the remote, until the slot
is needed: its outside port stays reserved after a restart, too (RFC 6888 REQ-8).

A file belongs to one boot of the machine, because its times are those of that boot's clock. Each start reads the file,
writes a new one beside it and renames that over the old one, so a start that is killed loses nothing. No file is opened
afterwards.
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
from bridge.walk.forwarding.crossing import Crossing
from bridge.walk.interface import Interface
from wire.ipv4 import ICMP, TCP, UDP
from wire.units import SECOND_NS

log = logging.getLogger(__name__)

LAG_NS: Final = SECOND_NS // 20
AT_ONCE: Final = 128
"""Changes written in `LAG_NS` at most, less than one percent of a core. Further ones wait for the next turn."""
MOST_LINKS: Final = 7 * 65_536
"""More than both egresses have ports: a larger `max_links` takes no more room."""
SPARE: Final = 16_384
"""Records beyond `max_links` for reserved ports of ended links; never more than `max_links` itself."""

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


class _StoredLink(NamedTuple):
    """A record of the file, not checked yet. `body`: its bytes; `check`: the CRC that stood behind them."""

    kept: Saved
    has_ended: bool
    body: bytes
    check: int


class LinkFile:
    """Keeps a file in step with the links. `restored`: links of the file before that go on.

    `now` is in ns of the monotonic clock. Raises `OSError` where the file cannot be made, `ValueError` where the boot's
    identity is unreadable.
    """

    def __init__(
        self, path: Path, aliases: Aliases, interfaces: Mapping[str, Interface], crossing: Crossing, now: int
    ) -> None:
        self.path = path
        self.restored = 0
        self._aliases = aliases
        self._crossing = crossing
        self._interfaces = interfaces
        self._tap0 = interfaces.get("tap0")
        limit = min(aliases.settings.max_links, MOST_LINKS)
        self._slots = limit + min(limit, SPARE)
        self._fresh = 0  # the first slot that was never used
        self._freed: deque[int] = deque()
        self._places: dict[tuple[Egress, int], array[int]] = {}  # by outside port: the slot + 1, 0 for none
        self._others: dict[tuple[Egress, int, int], int] = {}  # slots of links without ports, by remote
        self._began_ns, self._left = now, AT_ONCE  # changes that may still be written in this `LAG_NS`
        self._is_told = False
        boot = UUID(_BOOT_ID.read_text().strip()).bytes
        found = _read(path, boot, 4 * self._slots)
        fresh = path.with_name(path.name + ".new")
        fresh.unlink(missing_ok=True)  # not truncated: it may have other names, or be mapped by another gateway
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            size = _HEADER_BYTES + self._slots * _RECORD_BYTES
            os.posix_fallocate(fd, 0, size)  # writing to a missing page would end the process
            self._map = mmap.mmap(fd, size)
            self._map.madvise(mmap.MADV_DONTFORK)  # children that answer questions must not write to it
            self._map[: _HEADER.size] = _HEADER.pack(_MAGIC, _VERSION, _RECORD_BYTES, self._slots, boot)
            aliases.changes.want(True)
            self._restore(found or [], now)
            self.catch_up(now)
            fresh.replace(path)
        except OSError:
            fresh.unlink(missing_ok=True)  # the disk may be full
            raise
        finally:
            os.close(fd)

    def close(self) -> None:
        """Write the remaining changes. The file stays."""
        self.catch_up()
        self._map.close()

    # Time

    def next_deadline(self) -> int | None:
        """The time in ns at which `tick` writes next; None while nothing has changed."""
        if not self._aliases.changes:
            return None
        return self._began_ns if self._left else self._began_ns + LAG_NS

    def tick(self, now: int) -> None:
        """Write the changed links: all of them, or in a flood as many as `AT_ONCE` allows in `LAG_NS`."""
        changed = self._aliases.changes
        if not changed:
            return
        if now >= self._began_ns + LAG_NS:
            self._began_ns, self._left = now, AT_ONCE
        # Ended links wait there too. Beyond the number of slots all are written, so that the list stays bounded.
        most = self._left if len(changed) <= self._slots else len(changed)
        self._left = max(self._left - len(changed), 0)
        self._write(most, now)

    def catch_up(self, now: int | None = None) -> None:
        """Write all changed links, after an operator's command or before the end."""
        self._write(len(self._aliases.changes), self._aliases.latest_ns if now is None else now)

    # Writing

    def _write(self, limit: int, now: int) -> None:
        contexts: dict[tuple[Egress, int], int | None] = {}  # kept for this turn only: a reload moves hosts
        for link in self._aliases.changes.take(limit):
            host = link.egress, link.inside
            if host not in contexts:
                contexts[host] = self._context(*host)
            self._write_link(link, contexts[host], now)

    def _write_link(self, link: Link, context: int | None, now: int) -> None:
        slot = self._slot(link)
        if not link.expires_ns or context is None:
            if slot is None:
                return
            ended = saved(link)._replace(remote=0, remote_port=0, expires_ns=now + REST_NS)
            self._put(slot, ended, 0 if context is None else context, _ENDED)
            self._freed.append(slot)
            self._keep(link, 0)
            return
        if slot is None:
            if self._fresh < self._slots:  # records of ended links stay as long as possible
                slot = self._fresh
                self._fresh += 1
            elif self._freed:
                slot = self._freed.popleft()
            else:
                self._tell_full()
                return
            self._keep(link, slot + 1)
        self._put(slot, saved(link), context)

    def _put(self, slot: int, kept: Saved, context: int, more: int = 0) -> None:
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
        self._map[at : at + _RECORD_BYTES] = body + _CHECK.pack(crc32(body, context))

    def _slot(self, link: Link) -> int | None:
        if link.protocol not in _WITH_PORTS:
            return self._others.get((link.egress, link.protocol, link.remote))
        places = self._places.get((link.egress, link.protocol))
        slot = 0 if places is None else places[link.outside_port]
        return slot - 1 if slot else None

    def _keep(self, link: Link, place: int) -> None:
        """Note where a link's record is. `place`: its slot + 1, 0 for none."""
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

    # The context of a record

    def _context(self, egress: Egress, inside: int) -> int | None:
        """A CRC of the facts that must be the same when a link goes on: the owner of its inside address, and the
        outside address that hides it. The CRC of a record begins with it. None: the host may have no links.
        """
        hides = self._interfaces.get(egress.label)
        outside = 0 if hides is None else hides.linked_address  # read anew: a reload may change tap1's address
        side = self._crossing.port_inside(inside)
        behind = self._crossing.behind(inside)
        if not outside or side is None or behind is None:
            return None
        if side.interface is self._tap0 and not self._tap0.is_on_link(inside):
            return None
        return crc32(f"{behind} {outside}".encode())

    # Reading

    def _restore(self, found: list[_StoredLink], now: int) -> None:
        contexts: dict[tuple[Egress, int], int | None] = {}
        reserved: list[tuple[int, Saved]] = []
        for kept, has_ended, body, check in sorted(found, key=lambda record: record.kept.expires_ns, reverse=True):
            host = kept.egress, kept.inside
            if host not in contexts:
                contexts[host] = self._context(*host)
            context = contexts[host]
            if context is None or crc32(body, context) != check:
                continue
            if has_ended:
                reserved.append((kept.expires_ns, kept))
                continue
            if self._aliases.restore(kept, now) is not None:
                self.restored += 1
            else:
                reserved.append((kept.expires_ns + REST_NS, kept))
        for until_ns, kept in sorted(reserved):
            if until_ns > now:
                self._aliases.rest(kept, min(until_ns, now + REST_NS))


def link_file_of(socket_path: Path) -> Path:
    """The link file of a gateway without `alias.state_file`: `control.links` beside `control.sock`.

    Only a final `.sock` is replaced, because `site.a` and `site.b` must not share one file.
    """
    return socket_path.with_name(socket_path.name.removesuffix(".sock") + ".links")


def open_link_file(
    path: Path, aliases: Aliases, interfaces: Mapping[str, Interface], crossing: Crossing, now: int
) -> LinkFile | None:
    """The link file, its links restored. None where it cannot be made: this is logged once, and the gateway runs on."""
    try:
        link_file = LinkFile(path, aliases, interfaces, crossing, now)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        aliases.changes.want(False)
        with suppress(OSError):
            path.unlink()  # the next start would restore links that have ended since
        log.warning("%s: %s; links will not outlive a restart", path, why)
        return None
    if link_file.restored:
        log.info("%d links go on from before the restart", link_file.restored)
    return link_file


def _header_error(header: bytes, boot: bytes) -> str:
    """The reason why a file with this header is not read, "" for none."""
    if len(header) < _HEADER_BYTES:
        return "it is cut off"
    magic, version, record_bytes, _, of_boot = _HEADER.unpack_from(header)
    if magic != _MAGIC:
        return "it is no link file"
    if (version, record_bytes) != (_VERSION, _RECORD_BYTES):
        return "another version wrote it"
    return "" if of_boot == boot else "the machine was started anew since"


def _read(path: Path, boot: bytes, most: int) -> list[_StoredLink] | None:
    """At most `most` records of a file. None where there is no link file of this boot; a file that is there and cannot
    be used is logged in one line."""
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
        wrong = _header_error(file.read(_HEADER_BYTES), boot)
        if wrong:
            log.info("%s: %s; links begin anew", path, wrong)
            return None
        records = file.read(most * _RECORD_BYTES)
    found = []
    for at in range(0, len(records) - _RECORD_BYTES + 1, _RECORD_BYTES):
        body = records[at : at + _BODY.size]
        if not any(body):
            continue
        kept, has_ended = _kept(body)
        if kept.protocol != TCP or is_state(kept.state):
            found.append(_StoredLink(kept, has_ended, body, *_CHECK.unpack_from(records, at + _BODY.size)))
    return found


def _kept(body: bytes) -> tuple[Saved, bool]:
    """The link of a record, and whether it has ended."""
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
