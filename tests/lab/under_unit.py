"""Runs a command under the restrictions of a systemd unit, as far as they can be had without systemd as process 1.

    python -m tests.lab.under_unit UNIT USER WRITABLE[:WRITABLE...] COMMAND...

From the unit: User's rights (USER in its place), AmbientCapabilities, CapabilityBoundingSet, NoNewPrivileges, UMask,
ProtectSystem=strict with nothing writable but the folders WRITABLE, a /dev that holds what DevicePolicy=closed and
DeviceAllow leave, MemoryDenyWriteExecute (as PR_SET_MDWE), RestrictAddressFamilies and SystemCallFilter, whose groups
are systemd-analyze's. The filters are made by libseccomp, with ctypes, as systemd makes its own.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

from bridge.privsep import seccomp
from bridge.privsep.privileges import CAP_NET_ADMIN, die_with_parent

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _RDONLY = 442, -100, 0x8000, 1
_PR_SET_KEEPCAPS, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_SET_MDWE = 8, 24, 38, 47, 65
_CLOSED = ("null", "zero", "full", "random", "urandom")
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_EQUAL = 4


class Unit:
    """The `[Service]` of a unit file; a key that stands several times has all its values."""

    def __init__(self, path: Path) -> None:
        self.values: dict[str, list[str]] = {}
        section = ""
        for line in path.read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif section == "Service" and line and not line.startswith("#"):
                key, _, value = line.partition("=")
                self.values.setdefault(key, []).append(value)

    def one(self, key: str) -> str:
        """The last value of a key."""
        return self.values[key][-1]

    def system_calls(self) -> set[str]:
        """The system calls that `SystemCallFilter` leaves."""
        left: set[str] = set()
        for line in self.values["SystemCallFilter"]:
            names = {name for word in line.removeprefix("~").split() for name in expanded(word)}
            left = left - names if line.startswith("~") else left | names
        return left


def expanded(word: str) -> set[str]:
    """The system calls of a group, as systemd on this machine has it."""
    if not word.startswith("@"):
        return {word}
    shown = subprocess.run(["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True)
    words = [line.strip() for line in shown.stdout.splitlines()[1:]]
    names = [name for name in words if name and not name.startswith("#")]
    return {one for name in names for one in (expanded(name) if name.startswith("@") else {name})}


def _call(name: str, *arguments: object) -> int:
    found = int(getattr(_LIBC, name)(*arguments))
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return found


def protect_system(writable: list[str]) -> None:
    """ProtectSystem=strict, and a bare /dev."""
    _call("unshare", _CLONE_NEWNS)
    _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    for folder in writable:
        _call("mount", folder.encode(), folder.encode(), None, _MS_BIND, None)
    aside = Path("/run/dev-aside")
    aside.mkdir(exist_ok=True)
    _call("mount", b"/dev", str(aside).encode(), None, _MS_BIND | _MS_REC, None)
    _call("mount", b"none", b"/dev", b"tmpfs", 0, b"mode=755")
    Path("/dev/net").mkdir()
    for name in _CLOSED:
        Path("/dev", name).touch()
        _call("mount", str(aside / name).encode(), f"/dev/{name}".encode(), None, _MS_BIND, None)
    os.mknod("/dev/net/tun", 0o20000, os.makedev(10, 200))
    Path("/dev/net/tun").chmod(0o666)  # as udev makes it everywhere
    _call("umount2", str(aside).encode(), 2)
    _set_read_only("/", _RDONLY, 0, _AT_RECURSIVE)
    for folder in writable:
        _set_read_only(folder, 0, _RDONLY, 0)


def _set_read_only(folder: str, add: int, clear: int, flags: int) -> None:
    attributes = struct.pack("=QQQQ", add, clear, 0, 0)
    _call("syscall", _MOUNT_SETATTR, _AT_FDCWD, folder.encode(), flags, attributes, len(attributes))


def become(user: str, unit: Unit) -> None:
    """The user, with the unit's ambient capability and no way to more."""
    assert unit.one("AmbientCapabilities") == unit.one("CapabilityBoundingSet") == "CAP_NET_ADMIN"
    assert unit.one("NoNewPrivileges") == "yes"
    for number in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        if number != CAP_NET_ADMIN:
            _call("prctl", _PR_CAPBSET_DROP, number, 0, 0, 0)
    _call("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setresgid(*[entry.pw_gid] * 3)
    os.setresuid(*[entry.pw_uid] * 3)
    bit = 1 << CAP_NET_ADMIN
    _call("capset", struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", bit, bit, bit, 0, 0, 0))
    _call("prctl", _PR_CAP_AMBIENT, 2, CAP_NET_ADMIN, 0, 0)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    die_with_parent()  # what the lab asked for went with the user
    os.umask(int(unit.one("UMask"), 8))


def filter_system_calls(unit: Unit) -> None:
    """MemoryDenyWriteExecute, RestrictAddressFamilies, SystemCallFilter."""
    assert unit.one("MemoryDenyWriteExecute") == "yes"
    _call("prctl", _PR_SET_MDWE, 1, 0, 0, 0)
    library = ctypes.CDLL(seccomp.LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_REFUSE)))
    families = [int(getattr(socket, name)) for name in unit.one("RestrictAddressFamilies").split()]
    for name in unit.system_calls() | {"execve"}:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            continue
        comparisons = [seccomp._Comparison(0, _EQUAL, family, 0) for family in families] if name == "socket" else [None]
        for one in comparisons:
            pointer = None if one is None else ctypes.byref(one)
            added = library.seccomp_rule_add_array(
                context, ctypes.c_uint32(_ALLOW), number, 0 if one is None else 1, pointer
            )
            assert added == 0, (name, added)
    assert library.seccomp_load(context) == 0
    library.seccomp_release(context)


def main(words: list[str]) -> None:
    """Become the command."""
    unit, user, writable, command = Unit(Path(words[0])), words[1], words[2].split(":"), words[3:]
    calls = unit.system_calls()  # while another program can still be started
    unit.system_calls = lambda: calls  # type: ignore[method-assign] # the answer is known
    assert unit.one("ProtectSystem") == "strict"
    assert unit.values["DeviceAllow"] == ["/dev/net/tun rw"]
    protect_system(writable)
    become(user, unit)
    filter_system_calls(unit)
    os.execv(shutil.which(command[0]) or command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
