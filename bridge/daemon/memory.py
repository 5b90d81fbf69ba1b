"""Memory of the process: glibc keeps freed memory (mallopt(3)), and Python looks for garbage rarely."""

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

    A burst takes 100 KB to 2 MB for a moment. glibc gives memory back from 128 KiB on, so the kernel would make and
    zero the pages of each burst anew, which costs half as much as sealing. Other C libraries are left as they are.
    """
    with suppress(AttributeError):
        _LIBC.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def collect_rarely() -> None:
    """Keep Python's full search for garbage from stopping the frames. Call it once, when everything is set up.

    With 65,536 links a full search takes 50 ms, and Python would begin one whenever the number of objects has grown by
    a quarter. Objects that exist now are left out for good, which lets a forked child share them longer, too. Objects
    that live long are searched a hundred times more rarely. Only cycles need this search: the walk, a reload and a bug
    make none, and cycles of libraries are found while they are young, as before.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _MIDDLE_BEFORE_FULL)
