"""The operator's `lease` program: run at every change of tap1's lease, with the rights of the start.

The gateway gives up its rights before it forwards. So a shell is started early and waits for words: `NAME=value` goes
into the environment of the program, `go` runs it. Programs run one after the other, 30 s each. A second shell waits for
the end of a pipe, which is the end of the gateway or of `close`, and kills the group.
"""

from __future__ import annotations

import errno
import logging
import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from dhcp.lease import Lease
from wire.units import address_text

log = logging.getLogger(__name__)

LIMIT_S = 30
_SHELL = f"""\
exec 3<&1 1>&2
(read -r word <&3; kill -KILL 0) >/dev/null 2>&1 </dev/null &
while read -r word; do
  case "$word" in
    go) timeout -k 1 {LIMIT_S} "$0" </dev/null 3<&- || echo "WARNING: the lease hook failed: $?" >&2 ;;
    *) export "$word" ;;
  esac
done"""


class LeaseHook:
    """One program. Raises `OSError` where it cannot be started."""

    def __init__(self, program: Path) -> None:
        if not os.access(program, os.X_OK):
            missing = errno.EACCES if program.exists() else errno.ENOENT
            raise OSError(missing, os.strerror(missing), str(program))
        life, self._life = os.pipe()  # closed by the kernel where the gateway is killed
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _SHELL, program],
                stdin=subprocess.PIPE,
                stdout=life,  # a descriptor that every shell can name; what it prints goes to standard error
                cwd=program.parent,
                process_group=0,
            )
        finally:
            os.close(life)
        assert self._process.stdin is not None
        self._words = self._process.stdin.fileno()
        os.set_blocking(self._words, False)

    def run(self, environment: Mapping[str, str]) -> None:
        """Run the program with these variables, after earlier runs. A run that finds no room to wait is lost."""
        words = "".join(f"{name}={value}\n" for name, value in environment.items()) + "go\n"
        try:
            os.write(self._words, words.encode())
        except OSError as error:  # it still runs, and many changes wait
            log.warning("the lease hook is not run: %s", error.strerror)

    def close(self) -> None:
        """End it where it stands."""
        os.close(self._life)
        with suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._process.wait()


def environment_of(change: str, lease: Lease | None, mtu_bytes: int) -> dict[str, str]:
    """The variables of a change; all but the first are empty without a lease, and where the server says nothing."""
    if lease is None:
        return {"LEASE_CHANGE": change, **dict.fromkeys(_VARIABLES, "")}
    return {
        "LEASE_CHANGE": change,
        "TAP1_ADDRESS": address_text(lease.address),
        "TAP1_PREFIX_LENGTH": str(lease.prefix_length),
        "TAP1_GATEWAY": address_text(lease.gateway) if lease.gateway else "",
        "TAP1_MTU": str(mtu_bytes),
        "TAP1_DNS": " ".join(map(address_text, lease.dns)),
        "TAP1_DOMAIN": lease.domain or "",
    }


_VARIABLES = ("TAP1_ADDRESS", "TAP1_PREFIX_LENGTH", "TAP1_GATEWAY", "TAP1_MTU", "TAP1_DNS", "TAP1_DOMAIN")
