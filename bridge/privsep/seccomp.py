"""A seccomp filter (seccomp(2)) by libseccomp, which every machine with systemd has: system calls that a gateway never
makes once it stands are refused with EPERM.

It is a list of what is refused, not of what is allowed: Python, libc and libsodium change what they call with their
versions, and a gateway must not stop for that. systemd's own list of what is allowed is in packaging/tapbridge.service
(docs/decisions/0032-what-the-kernel-still-does-for-us.md).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable

LIBRARY = "libseccomp.so.2"

# fmt: off
REFUSED = (
    "acct", "add_key", "adjtimex", "bpf", "capset", "chown", "chown32", "chroot", "clock_adjtime", "clock_settime",
    "create_module", "delete_module", "execve", "execveat", "fanotify_init", "fchown", "fchown32", "fchownat",
    "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "init_module", "io_uring_enter", "io_uring_register",
    "io_uring_setup", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl", "lchown", "lchown32",
    "link", "linkat", "lookup_dcookie", "mknod", "mknodat", "mount", "mount_setattr", "move_mount",
    "name_to_handle_at", "nfsservctl", "open_by_handle_at", "open_tree", "perf_event_open", "personality",
    "pidfd_getfd", "pivot_root", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace", "quotactl",
    "quotactl_fd", "reboot", "request_key", "setdomainname", "setfsgid", "setfsuid", "setgid", "setgid32",
    "setgroups", "setgroups32", "sethostname", "setns", "setregid", "setregid32", "setresgid", "setresgid32",
    "setresuid", "setresuid32", "setreuid", "setreuid32", "settimeofday", "setuid", "setuid32", "stime", "swapoff",
    "swapon", "symlink", "symlinkat", "sysfs", "syslog", "umount", "umount2", "unshare", "uselib", "userfaultfd",
    "ustat", "vhangup", "vm86", "vm86old",
)
# fmt: on
"""Other programs, users, namespaces, file systems, modules, clocks, keys and other processes' memory, and calls in
which bugs of the kernel were found lately and that nobody here needs."""

NO_NETWORK = ["accept", "accept4", "bind", "connect", "listen", "socket"]
"""Refused to the warden besides: it has all its descriptors already."""

_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_UNKNOWN = -1
_NOT_ERRNO_BUT = {
    "clone3": errno.ENOSYS
}  # its flags are in memory: without it libc asks by `clone`, which is looked at
_CLONE_NEW = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_EQUAL, _GREATER, _MASKED = 4, 6, 7
_ATTRIBUTE_TSYNC, _ATTRIBUTE_SSB, _ATTRIBUTE_OPTIMIZE = 4, 7, 8


class _Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def confine(more: Iterable[str] = ()) -> bool:
    """Refuse `REFUSED` and `more` from now on, in all threads and for good; False where there is no libseccomp.

    `no_new_privs` has to be set. Raises `OSError` where the kernel takes no filter.
    """
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    library.seccomp_init.restype = ctypes.c_void_p
    made = library.seccomp_init(ctypes.c_uint32(_ALLOW))
    if not made:
        return False
    context = ctypes.c_void_p(made)
    try:
        library.seccomp_attr_set(context, _ATTRIBUTE_TSYNC, 1)
        library.seccomp_attr_set(context, _ATTRIBUTE_SSB, 1)  # no slower memory in return (kernels before 5.16)
        library.seccomp_attr_set(context, _ATTRIBUTE_OPTIMIZE, 2)  # a tree in place of a list
        for name in (*REFUSED, *more):
            _refuse(library, context, name, errno.EPERM)
        for name, number in _NOT_ERRNO_BUT.items():
            _refuse(library, context, name, number)
        if os.uname().machine != "s390x":  # where the flags are another argument
            for flag in _CLONE_NEW:
                _refuse(library, context, "clone", errno.EPERM, _Comparison(0, _MASKED, flag, flag))
        if "socket" not in more:
            for family in range(_AF_NETLINK):
                if family not in (_AF_UNIX, _AF_INET, _AF_INET6):
                    _refuse(library, context, "socket", errno.EAFNOSUPPORT, _Comparison(0, _EQUAL, family, 0))
            _refuse(library, context, "socket", errno.EAFNOSUPPORT, _Comparison(0, _GREATER, _AF_NETLINK, 0))
        _check(library.seccomp_load(context))
    finally:
        library.seccomp_release(context)
    return True


def _refuse(
    library: ctypes.CDLL, context: ctypes.c_void_p, name: str, number: int, comparison: _Comparison | None = None
) -> None:
    """A name that this architecture or libseccomp does not have needs no refusing."""
    found = library.seccomp_syscall_resolve_name(name.encode())
    if found != _UNKNOWN:
        count = 0 if comparison is None else 1
        pointer = None if comparison is None else ctypes.byref(comparison)
        _check(library.seccomp_rule_add_array(context, ctypes.c_uint32(_REFUSE | number), found, count, pointer))


def _check(result: int) -> None:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
