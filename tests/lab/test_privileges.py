"""The rights of a running gateway: another user, no capabilities, a filter; and the work that it can still do."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bridge.control.client import ControlError
from lab.flows import FLOWS, PacketFlow, observe
from lab.private import Impossible
from lab.process import LabProcess
from lab.readable import let_everyone_run_python
from lab.topology import CONFIGURATION, Lab
from tests.lab.far_end import until
from tests.lab.test_daemon import assert_nothing_is_left
from tests.lab.test_keys_stay_hidden import family
from tests.laboratory import needing_the_kernel

pytestmark = pytest.mark.lab

USER = "nobody"
AS_USER = f'\n[process]\nuser = "{USER}"\n'
NET_ADMIN, DAC_READ_SEARCH = 1 << 12, 1 << 2


def demand_another_user() -> None:
    """A skip, or on the build machine a failure, where the lab is root of a user namespace that has nobody else."""
    with needing_the_kernel():
        if Path("/proc/self/setgroups").read_text().strip() == "deny":
            raise Impossible("this user namespace has no second user")


@pytest.fixture(scope="module", autouse=True)
def _everyone(bare_lab: Lab) -> None:
    demand_another_user()
    let_everyone_run_python()
    bare_lab.serve()


@pytest.fixture
def quiet(bare_lab: Lab) -> Iterator[Lab]:
    """The topology without a gateway before and after, files as root has them: nobody else may read them."""
    yield bare_lab
    bare_lab.remove_gateway()
    bare_lab.folder.chmod(0o755)


class Status(NamedTuple):
    """Of /proc/PID/status."""

    uids: set[int]
    gids: set[int]
    groups: set[int]
    capabilities: dict[str, int]
    no_new_privs: int
    seccomp: int


def status(pid: int) -> Status:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    return Status(
        set(map(int, facts["Uid"].split())),
        set(map(int, facts["Gid"].split())),
        set(map(int, facts["Groups"].split())),
        {name: int(facts[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
        int(facts["NoNewPrivs"]),
        int(facts["Seccomp"]),
    )


def warden_of(gateway: LabProcess) -> int:
    """The pid of its warden."""
    found = []

    def has_come() -> bool:
        found[:] = [
            pid for pid in family(gateway.pid) if b"bridge.privsep.warden" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        return bool(found) and status(found[0]).seccomp == 2

    until(has_come, "the warden has given up its rights")
    return found[0]


def configure_secretly(lab: Lab, configuration: str) -> None:
    """As an operator does who lets nobody else look."""
    lab.configure(configuration)
    for path in lab.folder.glob("*.t*"):
        path.chmod(0o600)
    lab.folder.chmod(0o700)


def test_it_becomes_another_user_who_may_nothing(quiet: Lab) -> None:
    configure_secretly(quiet, CONFIGURATION + AS_USER)
    gateway = quiet.start_gateway()
    entry = pwd.getpwnam(USER)
    own = status(gateway.pid)
    assert (own.uids, own.gids) == ({entry.pw_uid}, {entry.pw_gid})
    assert own.groups <= set(os.getgrouplist(USER, entry.pw_gid))
    assert set(own.capabilities.values()) == {0}
    assert (own.no_new_privs, own.seccomp) == (1, 2)
    assert os.stat(f"/proc/{gateway.pid}/mem").st_uid == 0, "not dumpable: its memory is not even its user's"
    assert [path.name for path in Path(f"/proc/{gateway.pid}/task").iterdir()] == [str(gateway.pid)]
    warden = status(warden_of(gateway))
    assert warden.uids == {0}
    assert warden.capabilities["CapPrm"] == warden.capabilities["CapEff"] == NET_ADMIN | DAC_READ_SEARCH
    assert warden.capabilities["CapAmb"] == warden.capabilities["CapInh"] == 0
    assert warden.capabilities["CapBnd"] & ~(NET_ADMIN | DAC_READ_SEARCH) == 0
    assert (warden.no_new_privs, warden.seccomp) == (1, 2)
    assert len(family(gateway.pid)) == 2


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_the_four_flows_pass_under_another_user(quiet: Lab, flow: PacketFlow) -> None:
    if quiet.gateway is None:
        configure_secretly(quiet, CONFIGURATION + AS_USER)
        quiet.start_gateway()
    answer, hops = observe(quiet, flow)
    assert answer["ok"]
    assert hops == flow.hops


def test_a_reload_reads_what_only_root_may_read(quiet: Lab) -> None:
    configure_secretly(quiet, CONFIGURATION + AS_USER)
    gateway = quiet.start_gateway()
    configure_secretly(quiet, CONFIGURATION.replace("offload.txt", "more.txt") + AS_USER)
    (quiet.folder / "more.txt").write_text("203.0.113.0/24\n")
    (quiet.folder / "more.txt").chmod(0o600)
    moves = quiet.ask("reload", dry_run=True)["moves"]
    assert {move["prefix"] for move in moves} == {"114.114.0.0/16", "203.0.113.0/24"}
    gateway.signal(signal.SIGHUP)
    until(lambda: quiet.ask("route.get", ip="203.0.113.1")["target"] == "tap1", "the new list holds")
    (quiet.folder / "more.txt").unlink()
    (quiet.folder / "more.txt").symlink_to("/etc/shadow")
    with pytest.raises(ControlError, match=r"more\.txt.*permission denied"):
        quiet.ask("reload")
    (quiet.folder / "more.txt").unlink()
    with pytest.raises(ControlError, match=r"more\.txt.*no such file"):
        quiet.ask("reload")


def test_every_question_is_answered_and_a_stop_leaves_nothing(quiet: Lab) -> None:
    configure_secretly(quiet, CONFIGURATION.replace('"control.sock"', '"/run/new/control.sock"') + AS_USER)
    quiet.folder.chmod(0o755)
    socket_path = Path("/run/new/control.sock")
    gateway = quiet.namespaces["gw"].start_python("-m", "bridgectl", "run", "-c", str(quiet.config_path))
    try:
        until(socket_path.exists, "the control socket is there")
        for words in (
            ("stats",),
            ("flows",),
            ("alias",),
            ("arp",),
            ("route",),
            ("peers",),
            ("trace", "--port", "tap0", "udp", "192.168.200.3:5000", "8.8.8.8:53"),
            ("reload",),
        ):
            quiet.namespaces["gw"].python("-m", "bridgectl", *words, "--socket", str(socket_path))
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
        assert "bug" not in gateway.errors()
    finally:
        gateway.stop()
    kept = {path.name.removesuffix(".new") for path in socket_path.parent.iterdir()}
    assert kept == {"control.links", "control.lists"}, "links and lists alone are kept"
    shutil.rmtree(socket_path.parent)
    assert_nothing_is_left(quiet)


def test_the_socket_is_its_group_s_all_the_same(quiet: Lab) -> None:
    group = next(entry for entry in grp.getgrall() if entry.gr_gid not in (0, pwd.getpwnam(USER).pw_gid))
    text = CONFIGURATION.replace("[control]", f'[control]\ngroup = "{group.gr_name}"')
    configure_secretly(quiet, text + AS_USER)
    quiet.start_gateway()
    found = quiet.socket_path.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, group.gr_gid)


def test_the_down_hook_has_all_rights(quiet: Lab) -> None:
    log = quiet.folder / "told"
    hook = quiet.folder / "down.sh"
    hook.write_text(f"#!/bin/sh -e\nip link set br0 alias down\nid -u > {log}\n")
    hook.chmod(0o700)
    configure_secretly(quiet, CONFIGURATION + AS_USER + '[hooks]\ndown = "./down.sh"\n')
    quiet.start_gateway()
    quiet.ask("reload")
    assert quiet.stop_gateway() == 0
    assert log.read_text() == "0\n"
    assert_nothing_is_left(quiet)


def test_without_such_a_user_it_stays_root_and_says_so(quiet: Lab) -> None:
    """The default, where no user tapbridge was made."""
    try:
        pwd.getpwnam("tapbridge")
    except KeyError:
        quiet.configure(CONFIGURATION)
        gateway = quiet.start_gateway()
        assert gateway.errors().count("stays root") == 1
        assert status(gateway.pid).uids == {0}
        assert status(gateway.pid).capabilities["CapPrm"] == 1 << 1
        assert quiet.stop_gateway() == 0
        assert_nothing_is_left(quiet)
    else:
        pytest.skip("there is a user tapbridge here")


def test_no_confinement_where_none_is_wanted(quiet: Lab) -> None:
    quiet.configure(CONFIGURATION + "[process]\nconfine = false\n")
    gateway = quiet.start_gateway()
    assert status(gateway.pid).seccomp == 0
    until(lambda: len(family(gateway.pid)) == 2, "the warden is there")


# What somebody who has taken the process over would try. It runs as the gateway does after its start; every line that
# it prints is an attempt that went well.
CAPTURED = """
import ctypes, errno, os, pwd, signal, socket, subprocess, sys
from pathlib import Path
from bridge.privsep import landlock
from bridge.privsep import seccomp
from bridge.privsep.privileges import KEPT, User, drop_capabilities, forbid_core_dumps

user, writable, other = sys.argv[1], sys.argv[2], int(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)
forbid_core_dumps()
if user:
    entry = pwd.getpwnam(user)
    os.chown(writable, entry.pw_uid, entry.pw_gid)
    become = User(user, entry.pw_uid, entry.pw_gid, [entry.pw_gid])
    drop_capabilities(0, become)
else:
    drop_capabilities(KEPT)
known = landlock.confine(writing=[writable])
assert seccomp.confine()

def attempt(what, work):
    try:
        result = work()
    except (OSError, subprocess.SubprocessError):
        return
    print(what, result, flush=True)

def called(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result

if user:
    attempt("read /etc/shadow", lambda: open("/etc/shadow").read())
    attempt("bind a low port", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(("127.0.0.1", 53)))
if user or known >= 6:
    attempt("signal another process", lambda: os.kill(other, signal.SIGCONT))
attempt("a packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt("a raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("AF_ALG", lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET))
attempt("mount", lambda: called("mount", b"none", b"/mnt", b"tmpfs", 0, None))
attempt("ptrace", lambda: called("ptrace", 16, other, 0, 0))
attempt("read memory", lambda: open(f"/proc/{other}/mem", "rb").read(1))
attempt("execute", lambda: os.execv("/bin/true", ["true"]))
attempt("execute in a child", lambda: subprocess.run(["/bin/true"], check=True))
attempt("a user namespace", lambda: called("unshare", 0x10000000))
attempt("root again", lambda: os.setuid(0))
if os.uname().machine == "x86_64":
    attempt("a module", lambda: called("syscall", 175, b"", 0, b""))
attempt("another name", lambda: socket.sethostname("x"))
attempt("a device", lambda: os.mknod("/run/lab/null", 0o20600, 259))
if known:
    attempt("write elsewhere", lambda: open("/run/lab/told", "w"))
    attempt("append to /etc/passwd", lambda: open("/etc/passwd", "a"))
    attempt("make a folder", lambda: os.mkdir("/tmp/tapbridge-captured"))
if known >= 4:
    attempt("listen on TCP", lambda: socket.socket().bind(("127.0.0.1", 5555)))
    attempt("call by TCP", lambda: socket.create_connection(("127.0.0.1", 5556), 1))
Path(writable, "kept").write_text("what it is to write")
child = os.fork()
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("done", Path(writable, "kept").read_text())
"""


@pytest.mark.parametrize("user", [USER, ""], ids=["another user", "root without a user to become"])
def test_who_takes_the_process_over_can_nothing(quiet: Lab, user: str) -> None:
    quiet.remove_gateway()
    writable = quiet.folder / "state"
    writable.mkdir(exist_ok=True)
    other = quiet.namespaces["gw"].start("sleep", "60")
    try:
        told = quiet.namespaces["gw"].python("-c", CAPTURED, user, str(writable), str(other.pid))
    finally:
        other.stop()
    assert told.splitlines() == ["done what it is to write"]
