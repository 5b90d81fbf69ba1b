"""The cipher of the tunnel: compiled and on all cores where that is possible, or else plain and on one.

The compiled cipher (`tunnel.burst`) works without the interpreter's lock and takes help from threads; this module makes
the threads. The loop's thread works too, alone on bursts that are not worth waking a helper. A call returns when its
whole burst is done, so nothing of a burst, and no key, is in use between two calls.

The plain cipher stays on the loop's thread: it takes the interpreter's lock again after each packet, and two threads of
it were measured to be slower than one (docs/decisions/0014-several-cores.md).

`TAPBRIDGE_FAST=0` in the environment forces the plain one.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Literal

from bridge.loop.affinity import roam
from tunnel.primitives import Cipher, TransportKey

try:
    from tunnel.burst import CompiledCipher
except ImportError:
    CompiledCipher = None  # type: ignore[assignment,misc]  # a stub cannot say that a module may be missing

log = logging.getLogger(__name__)

STOP_S = 1.0
MOST_THREADS = 64
_HELPED_PACKETS = 32
"""A burst of fewer never has help, so helpers are not made for it."""


class Cores:
    """A `BurstCipher`. `threads`: how many work on a long burst, the caller's among them.

    Helpers are made by the first long burst: until then a thread would only keep the rights that its maker, later,
    gives up (capabilities are a thread's own).
    """

    def __init__(self, cipher: Cipher | CompiledCipher, threads: int = 1) -> None:
        self.kind: Literal["compiled", "plain"] = "plain" if isinstance(cipher, Cipher) else "compiled"
        self.threads = threads
        self._cipher = cipher
        self._helpers: list[threading.Thread] = []
        self._is_waiting = threads > 1

    def seal_burst(
        self, key: TransportKey, receiver: int, first: int, packets: Sequence[bytes], mtu_bytes: int
    ) -> list[bytes]:
        """As `BurstCipher`, with helpers for a long burst."""
        if self._is_waiting and len(packets) >= _HELPED_PACKETS:
            self._make_helpers()
        return self._cipher.seal_burst(key, receiver, first, packets, mtu_bytes)

    def open_burst(self, jobs: Sequence[tuple[TransportKey, bytes]]) -> list[bytes | None]:
        """As `BurstCipher`, with helpers for a long burst."""
        if self._is_waiting and len(jobs) >= _HELPED_PACKETS:
            self._make_helpers()
        return self._cipher.open_burst(jobs)

    @property
    def compiled(self) -> CompiledCipher | None:
        """The compiled cipher, for lanes; None where it is the plain one."""
        return None if isinstance(self._cipher, Cipher) else self._cipher

    def worked(self, packets: int) -> None:
        """Lanes sealed or opened so many packets at once: make helpers for the next ones, if they are long bursts."""
        if self._is_waiting and packets >= _HELPED_PACKETS:
            self._make_helpers()

    def _make_helpers(self) -> None:
        self._is_waiting = False
        assert not isinstance(self._cipher, Cipher), "the plain cipher has one thread"
        for number in range(1, self.threads):
            helper = threading.Thread(target=self._help, name=f"seal {number}", daemon=True)
            try:
                helper.start()
            except RuntimeError as error:  # the kernel gives no more threads
                log.warning("the tunnel seals on %d threads, not %d: %s", number, self.threads, error)
                self.threads = number
                return
            self._helpers.append(helper)

    def _help(self) -> None:
        roam()
        assert not isinstance(self._cipher, Cipher)
        self._cipher.help()

    def close(self) -> None:
        """Let the helpers go. Later bursts are sealed and opened by the caller alone."""
        self._is_waiting = False
        helpers, self._helpers = self._helpers, []
        if not helpers:
            return
        assert not isinstance(self._cipher, Cipher)
        self._cipher.release()
        for helper in helpers:
            helper.join(STOP_S)
        self.threads = 1


def open_cores(threads: int | None = None, environment: Mapping[str, str] = os.environ) -> Cores:
    """The best cipher here. `threads`: their number, None for one on each core that this process may use."""
    if CompiledCipher is not None and environment.get("TAPBRIDGE_FAST") != "0":
        count = len(os.sched_getaffinity(0)) if threads is None else threads
        return Cores(CompiledCipher(), min(count, MOST_THREADS))
    return Cores(Cipher())
