"""Giving up what a running gateway no longer needs, and small process attributes (capabilities(7), prctl(2),
mallopt(3), Python's collector)."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import struct
from contextlib import suppress
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_M_TRIM_THRESHOLD = -1
_KEPT_BYTES = 8 << 20
_MIDDLE_BEFORE_FULL = 1000  # Python's own value is 10
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE = 1

KEPT = 1 << _CAP_DAC_OVERRIDE
"""What stays: reading and removing files wherever that was possible at start (a reload, the control socket). The user
stays the same, so root still owns root's files; everything else that makes root is gone."""


def drop_capabilities(kept: int = KEPT) -> None:
    """Keep at most the capabilities of the bit mask `kept`, in this thread and whatever it starts, for good.

    Descriptors stay open and usable: a gateway forwards, answers and reloads without any right to make devices,
    routes or raw sockets. `OSError` where the kernel refuses, which it does not for giving up.
    """
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        if not kept >> capability & 1:
            with suppress(PermissionError):  # dropping from the bounding set takes CAP_SETPCAP; execve is closed below
                _prctl(_PR_CAPBSET_DROP, capability)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    held = (ctypes.c_uint32 * 6)()
    _check(_LIBC.capget(header, held))
    for word in range(2):
        keep = kept >> 32 * word & 0xFFFFFFFF
        effective, permitted = held[3 * word] & keep, held[3 * word + 1] & keep
        held[3 * word : 3 * word + 3] = [effective, permitted, 0]
    _check(_LIBC.capset(header, held))


def forbid_core_dumps() -> None:
    """Keep this process's memory, and that of the children it forks, out of core dumps and away from debuggers.

    The limit alone does not do it: where core_pattern is a pipe the kernel does not look at it (core(5)). A process
    that is not dumpable cannot be traced either, not even by its own user, and its files in /proc belong to root; what
    it executes is an ordinary process again.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, so that no descriptor outlives a killed gateway."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


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


def _prctl(option: int, value: int) -> None:
    _check(_LIBC.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)))


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
