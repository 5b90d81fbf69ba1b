"""The gateway becomes another user, or stays the same where that cannot be and says why in one sentence."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from bridge.privsep import user
from bridge.privsep.user import choose


@pytest.fixture
def process(tmp_path: Path) -> Path:
    """As /proc/self tells of a process in the machine's own user namespace."""
    for name in ("uid_map", "gid_map"):
        (tmp_path / name).write_text("         0          0 4294967295\n")
    (tmp_path / "setgroups").write_text("allow\n")
    (tmp_path / "status").write_text("Name:\tpython\nCapEff:\t000001ffffffffff\n")
    return tmp_path


@pytest.fixture
def _as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(user, "_unreadable_for", lambda _user: None)  # asking takes the right to become somebody


@pytest.mark.usefixtures("_as_root")
def test_root_becomes_the_user_that_is_named(process: Path) -> None:
    chosen = choose("nobody", process)
    assert chosen.user is not None
    assert (chosen.user.uid, chosen.says) == (pwd.getpwnam("nobody").pw_uid, "")


@pytest.mark.usefixtures("_as_root")
def test_root_stays_where_there_is_no_such_user_and_where_it_is_wanted(process: Path) -> None:
    assert choose("no-such-user", process).says.startswith("stays root, without its capabilities: there is no user no-")
    assert choose("root", process) == (None, "")


@pytest.mark.usefixtures("_as_root")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("uid_map", "0 1000 1\n"),
        ("gid_map", "0 1000 1\n"),
        ("setgroups", "deny\n"),
        ("uid_map", "0 0 1000\n1000 0 1\n"),
    ],
)
def test_a_user_namespace_that_has_only_us_is_no_place_to_change(process: Path, name: str, text: str) -> None:
    (process / name).write_text(text)
    chosen = choose("nobody", process)
    assert chosen == (None, "stays root of its user namespace, which has no user nobody")


@pytest.mark.usefixtures("_as_root")
@pytest.mark.parametrize("held", ["0000000000001000", "0000000000001040", "0000000000001080"])
def test_a_container_that_keeps_the_rights_to_itself_is_no_failed_start(process: Path, held: str) -> None:
    """As with `--cap-drop=ALL --cap-add=NET_ADMIN`."""
    (process / "status").write_text(f"Name:\tpython\nCapEff:\t{held}\n")
    chosen = choose("nobody", process)
    assert chosen.user is None
    assert chosen.says.startswith("stays root, without its capabilities: it takes CAP_SETUID and CAP_SETGID")


@pytest.mark.usefixtures("_as_root")
def test_a_user_who_cannot_read_the_modules_is_not_taken(process: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user, "_unreadable_for", lambda _user: "/root/modules")
    assert "the user nobody cannot read /root/modules" in choose("nobody", process).says


def test_who_is_not_root_stays_and_says_so_only_where_another_one_was_asked_for(
    process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = pwd.getpwnam("nobody")
    monkeypatch.setattr(os, "geteuid", lambda: entry.pw_uid)
    assert choose("", process) == choose("nobody", process) == (None, "")
    assert choose("root", process).says == "not started as root: stays nobody"
