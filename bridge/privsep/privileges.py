"""Giving up the rights that a running gateway no longer needs: user, groups, capabilities (capabilities(7), prctl(2)).

`bridge.privsep.landlock` and `bridge.privsep.seccomp` narrow further what a process may ask of the kernel. The warden
uses this module too, so it imports little.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from contextlib import suppress

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_GET_PDEATHSIG = 2
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE = 1

CAP_DAC_READ_SEARCH, CAP_NET_ADMIN = 2, 12

KEPT = 1 << _CAP_DAC_OVERRIDE
"""The capabilities of a gateway that stays root: it reads and removes files wherever that was possible at its start,
for a reload and for the control socket. Every other right of root is gone."""


class User:
    """The user that a gateway becomes when it was started as root."""

    def __init__(self, name: str, uid: int, gid: int, groups: list[int]) -> None:
        self.name, self.uid, self.gid, self.groups = name, uid, gid, groups


def drop_capabilities(kept: int = KEPT, user: User | None = None) -> None:
    """Become `user`, where there is one, and keep at most the capabilities of the bit mask `kept`: for good, in this
    thread and in everything that it starts.

    Descriptors stay open and usable: a gateway forwards, answers and reloads without any right to make devices,
    routes or raw sockets. Raises `OSError` where the kernel refuses; it never refuses giving up.
    """
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for capability in range(last + 1):
        if not kept >> capability & 1:
            with suppress(PermissionError):  # dropping from the bounding set takes CAP_SETPCAP; execve is closed below
                _prctl(_PR_CAPBSET_DROP, capability)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    if user is not None:
        parent = ctypes.c_int()
        _check(_LIBC.prctl(_PR_GET_PDEATHSIG, ctypes.byref(parent)))
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)  # takes the capabilities of all three sets along, with root's uid
        forbid_core_dumps()  # the kernel forgets both with the user (prctl(2))
        _prctl(_PR_SET_PDEATHSIG, parent.value)
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


def die_with_parent(by: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent ends, so that no descriptor outlives a killed
    gateway."""
    _prctl(_PR_SET_PDEATHSIG, by)


def _prctl(option: int, value: int) -> None:
    _check(_LIBC.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)))


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
