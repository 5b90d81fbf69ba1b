"""The lease of tap1 on disk, so that the next start asks for the same address (row D12).

One file, opened while that is not forbidden yet and written in place. `dhcp.saved` gives it a checksum: a torn file is
read as none, and the client begins with DISCOVER. A file that cannot be written costs a restart its address and nothing
else; it is told once.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from dhcp import saved
from dhcp.lease import Lease
from dhcp.saved import MOST_BYTES, SavedLease

log = logging.getLogger(__name__)


class LeaseFile:
    """`path` need not exist, nor its folder. `mac`: of tap1; a lease of another one is none. `wall_s`: seconds since
    1970, which say whether a lease that was kept is over."""

    def __init__(self, path: Path, mac: bytes, wall_s: Callable[[], float] = time.time) -> None:
        self._path = path
        self._mac = mac
        self._wall_s = wall_s
        self._descriptor: int | None = None
        self._is_told = False
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            self._tell(error)
            return
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            self._descriptor = descriptor
        else:
            os.close(descriptor)
            log.warning("%s is no file; a restart will not ask for the same address", path)

    def read(self) -> Lease | None:
        """The lease of an earlier run, as long as it lasts; None where there is none, or none that can be read."""
        if self._descriptor is None:
            return None
        try:
            data = os.pread(self._descriptor, MOST_BYTES + 1, 0)
        except OSError as error:
            self._tell(error)
            return None
        kept = saved.read(data, self._mac)
        if data and kept is None:
            log.info("%s: it holds no lease of ours; the client begins anew", self._path)
        if kept is None or (kept.expires_s is not None and kept.expires_s <= self._wall_s()):
            return None
        return kept.lease

    def write(self, lease: Lease | None) -> None:
        """Keep a lease that has just been granted; None: forget the one that is kept."""
        if self._descriptor is None:
            return
        data = b""
        if lease is not None:
            expires_s = None if lease.duration_s is None else int(self._wall_s()) + lease.duration_s
            data = saved.write(SavedLease(self._mac, lease, expires_s))
        try:
            os.pwrite(self._descriptor, data, 0)
            os.ftruncate(self._descriptor, len(data))
        except OSError as error:
            self._tell(error)

    def close(self) -> None:
        """Give the descriptor back; the file stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _tell(self, error: OSError) -> None:
        if not self._is_told:
            self._is_told = True
            log.warning("%s: %s; a restart will not ask for the same address", self._path, error.strerror)


def beside(socket_path: Path) -> Path:
    """Where the lease of a gateway is that has no other place for it: `control.lease` beside `control.sock`."""
    return socket_path.with_name(socket_path.name.removesuffix(".sock") + ".lease")
