"""How the process uses its memory: what glibc gives back (mallopt(3)), how often Python looks for garbage."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

_LIBC = ctypes.CDLL(None)
_M_TRIM_THRESHOLD = -1
_KEPT_BYTES = 8 << 20
_MIDDLE_BEFORE_FULL = 1000  # Python's own value is 10


def keep_freed_memory() -> None:
    """Do not give memory at the heap's end back to the kernel until it is 8 MiB.

    A burst is some 100 KB to 2 MB that live for a moment. glibc gives back from 128 KiB on, and each burst would have
    its pages made and zeroed anew, which costs as much as half of the sealing. Other C libraries are left as they are.
    """
    with suppress(AttributeError):
        _LIBC.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def collect_rarely() -> None:
    """Keep Python's full search for garbage from stopping the frames; to be called once everything is set up.

    With 65,536 links it takes some 50 ms, and would come whenever a quarter more have been made. What exists now is
    left out for good (a forked child shares it longer, too), and what lives long is looked through a hundred times more
    rarely. Garbage that only this search finds are cycles: the walk, a reload and a fault make none, and others' are
    found while they are young, as ever.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _MIDDLE_BEFORE_FULL)
