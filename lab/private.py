"""A place of our own for network namespaces: nothing outside sees them, and nothing of them outlives us.

The names that `ip netns` knows are mounts below /run/netns. Inside `private_names` the process has a mount namespace of
its own whose /run is empty, so names need not be unique, nobody else's can be hit, and when the process and its
children end, however they end, the kernel takes mounts, files, namespaces, bridges and devices away.

Root needs no more. Anybody else gets a user namespace first, in which they are root over their own namespaces.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyroute2 import IPRoute

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_CAP_SYS_ADMIN = 21
_TUN = Path("/dev/net/tun")


class Impossible(Exception):
    """This machine or this user cannot have the lab; the message says why."""


@contextmanager
def private_names() -> Iterator[None]:
    """Run the body with an empty /run/netns of our own; `Impossible` where that cannot be.

    Root comes back to where it was afterwards. Another user stays in the user namespace that it took (there is no way
    back), which is possible only while the process has one thread.
    """
    if not os.access(_TUN, os.R_OK | os.W_OK):
        raise Impossible(f"{_TUN} is missing or not ours to open")
    if _has_capability(_CAP_SYS_ADMIN):
        home = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _unshare(_CLONE_NEWNS)
            try:
                _empty_run()
                yield
            finally:
                _call("setns", home, _CLONE_NEWNS)
                os.fchdir(folder)
        finally:
            os.close(folder)
            os.close(home)
        return
    _become_root_of_our_own()
    _empty_run()
    yield


def _become_root_of_our_own() -> None:
    user, group = os.getuid(), os.getgid()
    _unshare(_CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    with IPRoute() as ip:  # this process keeps living here: let it have its loopback
        ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")


def _unshare(flags: int) -> None:
    try:
        _call("unshare", flags)
    except OSError as error:
        kind = "user namespace (this is not root)" if flags & _CLONE_NEWUSER else "mount namespace"
        raise Impossible(f"a {kind} is refused: {error.strerror}") from error


def _empty_run() -> None:
    try:
        _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
        _call("mount", b"tapbridge-lab", b"/run", b"tmpfs", 0, b"mode=755")
    except OSError as error:
        raise Impossible(f"nothing may be mounted here: {error.strerror}") from error
    Path("/run/netns").mkdir()


def _has_capability(number: int) -> bool:
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def _call(name: str, *arguments: object) -> None:
    if getattr(_LIBC, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
