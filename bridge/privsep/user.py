"""The choice of the user that the gateway becomes once its devices and sockets are open."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path
from typing import NamedTuple

from bridge.privsep.privileges import User

DEFAULT_USER = "tapbridge"
_TO_CHANGE = 1 << 6 | 1 << 7  # CAP_SETGID, CAP_SETUID


class Choice(NamedTuple):
    """`user`: the user to become, None to stay the present one. `says`: why, a sentence for the log that begins behind
    "the gateway"; "" where there is nothing to say."""

    user: User | None
    says: str


def choose(wanted: str, process: Path = Path("/proc/self")) -> Choice:
    """Choose by `wanted`, the key `process.user` of the configuration. `process`: the folder where the kernel tells of
    this process."""
    if os.geteuid() != 0:
        own = _own_name()
        return Choice(None, f"not started as root: stays {own}" if wanted not in ("", own) else "")
    try:
        entry = pwd.getpwnam(wanted or DEFAULT_USER)
    except KeyError:
        return Choice(
            None,
            f"stays root, without its capabilities: there is no user {wanted or DEFAULT_USER} "
            f"(`useradd --system --no-create-home {DEFAULT_USER}` makes one, process.user names another)",
        )
    if entry.pw_uid == 0:
        return Choice(None, "")
    if (
        not _is_mapped(entry.pw_uid, process / "uid_map")
        or not _is_mapped(entry.pw_gid, process / "gid_map")
        or (process / "setgroups").read_text().strip() == "deny"
    ):
        return Choice(None, f"stays root of its user namespace, which has no user {entry.pw_name}")
    if not _may_change(process / "status"):
        return Choice(
            None,
            f"stays root, without its capabilities: it takes CAP_SETUID and CAP_SETGID to become {entry.pw_name}, and "
            "the container or unit that started it did not give them",
        )
    user = User(entry.pw_name, entry.pw_uid, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid))
    unreadable = _unreadable_for(user)
    if unreadable is not None:
        return Choice(None, f"stays root, without its capabilities: the user {user.name} cannot read {unreadable}")
    return Choice(user, "")


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _may_change(status: Path) -> bool:
    """True where this process has the right to become another user."""
    held = next(line for line in status.read_text().splitlines() if line.startswith("CapEff:"))
    return int(held.split()[1], 16) & _TO_CHANGE == _TO_CHANGE


def _is_mapped(number: int, mapping: Path) -> bool:
    """True where a user or group of that number exists in our user namespace (user_namespaces(7))."""
    for line in mapping.read_text().splitlines():
        first, _, count = map(int, line.split())
        if first <= number < first + count:
            return True
    return False


def _unreadable_for(user: User) -> str | None:
    """The first folder of modules that the user may not read, None where there is none. Such a gateway could not import
    anything later on: one that is installed below /root is root's alone. A forked child becomes that user and tries."""
    folders = [folder for folder in (*sys.path, str(Path(__file__).parents[1])) if os.path.isdir(folder)]
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(user.groups)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
            missing = [folder for folder in folders if not os.access(folder, os.R_OK | os.X_OK)]
            os.write(writer, "".join(missing[:1]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        found = answer.read().decode()
    os.waitpid(pid, 0)
    return found or None
