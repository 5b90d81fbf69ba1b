"""The lab keeps to itself: no way out, nothing left, whoever runs it and however it ends."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from lab.process import LabProcess
from lab.topology import Lab

pytestmark = pytest.mark.lab

DEADLINE_S = 20.0
SCRIPT = """
import os
from lab.topology import topology
from lab.private import Impossible
try:
    with topology() as lab:
        lab.serve()
        gateway = lab.start_gateway()
        print("pids", os.getpid(), gateway.pid, flush=True)
        print(lab.client("lan3", "ping", "8.8.8.8")["ok"], flush=True)
        if os.environ.get("TEST_STAYS"):
            input()
except Impossible as reason:
    print("impossible", reason)
"""


def test_no_namespace_has_a_way_out(bare_lab: Lab) -> None:
    for namespace in bare_lab.namespaces.values():
        interfaces = {line.split()[0].partition("@")[0] for line in namespace.ip("-br link").splitlines()}
        assert interfaces <= {"lo", "eth0", "br0", "br1", "lan3", "lan4", "isp"}
        assert "203.0.113.1" not in namespace.run("ip", "route", "get", "203.0.113.1", check=False) or (
            "via 192.168.200.2 dev eth0" in namespace.ip("route get 203.0.113.1")
        )


def test_somebody_without_rights_gets_the_lab_in_a_user_namespace() -> None:
    rightless = ["setpriv", "--bounding-set", "-sys_admin,-net_admin", "--inh-caps", "-sys_admin,-net_admin", "--"]
    process = LabProcess([*rightless, sys.executable, "-c", SCRIPT])
    first = process.line()
    if first.startswith("impossible") or "Operation not permitted" in first:
        process.stop()
        assert os.environ.get("CI") != "true", first
        pytest.skip(f"no user namespace here: {first}")
    assert process.line() == "True"
    process.finish()
    process.stop()


def test_a_killed_lab_takes_everything_with_it(bare_lab: Lab) -> None:
    process = LabProcess([sys.executable, "-c", SCRIPT], {"TEST_STAYS": "1"})
    _, lab_pid, gateway_pid = process.line().split()
    assert process.line() == "True"
    ended = os.pidfd_open(int(gateway_pid))
    mounts = Path(f"/proc/{lab_pid}/ns/mnt").readlink()
    process.signal(signal.SIGKILL)
    assert select.select([ended], [], [], DEADLINE_S)[0], "the gateway outlived its lab"
    os.close(ended)
    process.stop()
    deadline = time.monotonic() + DEADLINE_S
    while any(namespace == mounts for namespace in _mount_namespaces()):
        assert time.monotonic() < deadline, "something still lives in the lab's namespaces"


def _mount_namespaces() -> list[Path]:
    found = []
    for link in Path("/proc").glob("[0-9]*/ns/mnt"):
        try:
            found.append(link.readlink())
        except OSError:  # it ended meanwhile
            continue
    return found
