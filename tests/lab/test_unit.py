"""packaging/tapbridge.service: the daemon runs under what it restricts, and the figure in its page is systemd's own."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.daemon.notify import watchdog_s
from lab.daemon import await_answer
from lab.flows import FLOWS, observe
from lab.process import ROOT, LabProcess
from lab.readable import let_everyone_run_python
from lab.topology import CONFIGURATION, Lab
from tests.lab.far_end import until
from tests.lab.test_privileges import NET_ADMIN, USER, demand_another_user, status, warden_of
from tests.lab.under_unit import Unit

UNIT = ROOT / "packaging" / "tapbridge.service"
PAGE = ROOT / "packaging" / "README.md"


def needing_systemd_analyze() -> None:
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("systemd-analyze is missing: scripts/install brings it (Debian's package systemd)")
        pytest.skip("systemd-analyze is missing (Debian's package systemd)")


def test_the_exposure_that_its_page_tells_is_the_one_that_systemd_finds() -> None:
    """A later systemd may know more to ask for; what it finds must not be worse than "OK"."""
    needing_systemd_analyze()
    words = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNIT)]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Overall exposure level for tapbridge\.service: (\d+\.\d+) (\w+)", shown)
    assert found is not None, shown
    told = re.search(r"exposure level of (\d+\.\d+)", PAGE.read_text())
    assert told is not None
    assert float(found[1]) <= float(told[1]), "the unit lost a restriction, or the page is to be corrected"
    assert found[2] == "OK"


def test_systemd_understands_every_line_of_it() -> None:
    needing_systemd_analyze()
    text = UNIT.read_text().replace("/usr/local/bin/bridgectl", "/bin/true")
    folder = Path("/run/tapbridge-unit-test") if os.access("/run", os.W_OK) else None
    if folder is None:
        pytest.skip("nowhere to put a unit")
    folder.mkdir()
    try:
        (folder / UNIT.name).write_text(text)
        words = ["systemd-analyze", "verify", "--man=no", str(folder / UNIT.name)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    finally:
        shutil.rmtree(folder)
    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []


def test_its_watchdog_is_one_that_the_gateway_keeps() -> None:
    """WatchdogSec reaches the daemon in microseconds."""
    seconds = float(Unit(UNIT).one("WatchdogSec"))
    assert watchdog_s({"WATCHDOG_USEC": str(int(seconds * 1e6)), "WATCHDOG_PID": "7"}, pid=7) == seconds


@pytest.fixture
def unit_lab(bare_lab: Lab) -> Iterator[Lab]:
    """The topology with folders as systemd makes them for the unit."""
    needing_systemd_analyze()
    demand_another_user()
    let_everyone_run_python()
    entry = pwd.getpwnam(USER)
    for folder in ("runtime", "state"):
        (bare_lab.folder / folder).mkdir()
        os.chown(bare_lab.folder / folder, entry.pw_uid, entry.pw_gid)
    bare_lab.serve()
    yield bare_lab
    bare_lab.remove_gateway()
    bare_lab.socket_path.unlink(missing_ok=True)


@pytest.mark.lab
def test_the_daemon_runs_as_the_unit_has_it(unit_lab: Lab) -> None:
    """Never root, CAP_NET_ADMIN alone, a read-only file system, no device but one, systemd's filter and no memory that
    is both written and executed: the four flows pass, a reload works, and a stop leaves nothing but
    the links."""
    lab = unit_lab
    plain = CONFIGURATION.replace('interface = "vpn0"\nnetns = "exit"\n', 'interface = "vpn0"\n')
    lab.configure(plain.replace('"control.sock"', '"runtime/control.sock"'))
    gw = lab.namespaces["gw"]
    socket_path = lab.folder / "runtime" / "control.sock"
    writable = f"{lab.folder}/runtime:{lab.folder}/state"
    under = ["-m", "tests.lab.under_unit", str(UNIT), USER, writable]
    gateway = gw.start_python(*under, sys.executable, "-m", "bridgectl", "run", "-c", str(lab.config_path))
    lab.gateway = gateway
    await_answer(gateway, socket_path, "the gateway under the unit's restrictions")
    lab.socket_path.symlink_to(socket_path)
    assert_unprivileged(gateway)
    gw.ip("link set vpn0 netns exit up")
    exit_machine = lab.namespaces["exit"]
    exit_machine.ip("link set vpn0 up")
    exit_machine.ip("route replace 192.168.192.0/24 dev vpn0")
    for flow in FLOWS:
        answer, hops = observe(lab, flow)
        assert answer["ok"], (flow.name, gateway.errors())
        assert hops == flow.hops
    (lab.folder / "offload.txt").write_text("114.114.0.0/16\n203.0.113.0/24\n")
    lab.ask("reload")
    assert lab.ask("route.get", ip="203.0.113.1")["target"] == "tap1"
    gw.ip("link set tun0 down")
    gw.ip("link set tun0 up")
    until(lambda: "128.0.0.0/1 dev tun0" in gw.ip("route"), "the warden works under the filter too")
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0
    assert "bug" not in gateway.errors()
    assert "refused" not in gateway.errors()
    kept = {left.name.removesuffix(".new") for left in (lab.folder / "runtime").iterdir()}
    assert kept == {"control.links", "control.lists"}, "links and lists outlive a stop"
    assert "tap0" not in gw.ip("-br link")


def assert_unprivileged(gateway: LabProcess) -> None:
    pid = warden_of(gateway)
    until(lambda: status(pid).capabilities["CapAmb"] == 0, "the warden has given up the rest")
    own, warden = status(gateway.pid), status(pid)
    uid = pwd.getpwnam(USER).pw_uid
    assert own.uids == warden.uids == {uid}
    assert own.capabilities.pop("CapBnd") == NET_ADMIN  # to take from it takes a right that it never had
    assert set(own.capabilities.values()) == {0}
    assert warden.capabilities["CapPrm"] == NET_ADMIN
    assert warden.capabilities["CapAmb"] == 0
