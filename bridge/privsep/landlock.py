"""Landlock (landlock(7)): the rights over files that this process and its children keep, whatever user they are.

Reading is left to the usual rights of the user. Changing a file or a folder is forbidden except where `confine` is
told, and so is executing anything. On newer kernels TCP connections go to port 53 only (a name server asked again by
TCP), no TCP port is bound, and no process outside is sent a signal.

The three system calls have the same numbers on every architecture. An older kernel knows fewer rights; one without
Landlock knows none, and that is no error.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from enum import IntFlag

_LIBC = ctypes.CDLL(None, use_errno=True)
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_O_PATH = 0o10000000
_DNS = 53


class Right(IntFlag):
    """`LANDLOCK_ACCESS_FS_...` of linux/landlock.h."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


_FIRST = Right((1 << 13) - 1) & ~Right(0b1100)  # all of the first version but reading
_BY_VERSION = {2: Right.REFER, 3: Right.TRUNCATE, 5: Right.IOCTL_DEV}
_NET_FROM, _SCOPE_FROM = 4, 6
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPE_SIGNAL = 2
_WRITING = Right.WRITE_FILE | Right.MAKE_REG | Right.REMOVE_FILE | Right.TRUNCATE


def version() -> int:
    """The version of Landlock that the kernel has; 0 for none."""
    found = _LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    return max(int(found), 0)


def handled(version: int) -> Right:
    """All rights over files that a kernel of that version can take away and that we want taken away."""
    rights = _FIRST
    for since, right in _BY_VERSION.items():
        if version >= since:
            rights |= right
    return rights


def ruleset(version: int) -> bytes:
    """`struct landlock_ruleset_attr`, as long as that version knows it."""
    attributes = struct.pack("=QQQ", handled(version), _BIND_TCP | _CONNECT_TCP, _SCOPE_SIGNAL)
    return attributes[: 24 if version >= _SCOPE_FROM else 16 if version >= _NET_FROM else 8]


def confine(writing: Iterable[str] = (), removing: Iterable[str] = (), folding: Iterable[str] = ()) -> int:
    """Allow from now on, to this thread and everything that it starts, only: writing files in the folders `writing`,
    removing files in the folders `removing`, removing folders in the folders `folding`. Folders that are missing are
    left out. Returns the version of Landlock, 0 where nothing was done.

    `no_new_privs` has to be set. Raises `OSError` where a kernel that has Landlock refuses.
    """
    known = version()
    if not known:
        return 0
    attributes = ruleset(known)
    rules = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        for rights, folders in ((_WRITING, writing), (Right.REMOVE_FILE, removing), (Right.REMOVE_DIR, folding)):
            for folder in folders:
                _allow(rules, folder, rights & handled(known))
        if known >= _NET_FROM:
            _call(_ADD_RULE, rules, _NET_PORT, struct.pack("=QQ", _CONNECT_TCP, _DNS), 0)
        _call(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)
    return known


def _allow(rules: int, folder: str, rights: Right) -> None:
    try:
        where = os.open(folder, _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _call(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights, where), 0)
    finally:
        os.close(where)


def _call(number: int, *arguments: object) -> int:
    found = int(_LIBC.syscall(number, *arguments))
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code or errno.EINVAL, os.strerror(code))
    return found
