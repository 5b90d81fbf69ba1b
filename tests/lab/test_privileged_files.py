"""A tunnel whose keys and state are root's, and a gateway that is somebody else: no key is told by any of them."""

from __future__ import annotations

import base64
import json
import pwd
import shutil
import sys
from pathlib import Path

import pytest

from lab.process import LabProcess, run
from lab.readable import let_everyone_run_python
from lab.topology import TUNNELLED, Lab
from lab.wireguard import FarEnd
from tests.lab.test_keys_stay_hidden import answers, assert_no_key, told_by_the_system
from tests.lab.test_privileges import AS_USER, USER, configure_secretly, demand_another_user, warden_of

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module", autouse=True)
def _everyone(wired: Lab) -> None:
    demand_another_user()
    let_everyone_run_python()


def readable_by_its_user(gateway: LabProcess, pid: int) -> list[str]:
    """Files of a process in /proc that hold memory or secrets and that the gateway's own user can open."""
    reader = """
import os, pwd, sys
entry = pwd.getpwnam(sys.argv[1])
os.setgroups([]); os.setresgid(*[entry.pw_gid] * 3); os.setresuid(*[entry.pw_uid] * 3)
for name in ("mem", "environ", "maps", "auxv", "fd/0", "map_files", "stack", "syscall"):
    try:
        path = f"/proc/{sys.argv[2]}/{name}"
        os.listdir(path) if name == "map_files" else open(path, "rb").read(1)
    except OSError:
        continue
    print(name)
"""
    assert gateway.is_running
    return run([sys.executable, "-c", reader, USER, str(pid)]).split()


def test_keys_that_root_keeps_to_itself_make_a_tunnel(wired: Lab, far: FarEnd) -> None:
    """The tunnel's state is written although its folder is root's, and read again by the next start."""
    far.start(psk=True)
    configure_secretly(wired, far.configuration(psk=True) + AS_USER)
    state = wired.folder / "tunnel.json"
    for _ in range(2):
        gateway = wired.start_gateway()
        assert wired.client("lan3", "ping", TUNNELLED)["ok"]
        wired.ask("reload")
        stamps = json.loads(state.read_text())
        assert list(stamps) == [far.far.public]
        assert state.stat().st_uid == pwd.getpwnam(USER).pw_uid
        assert wired.stop_gateway() == 0
        assert "bug" not in gateway.errors()
        assert "stamps" not in gateway.errors()
    wired.folder.chmod(0o755)


@pytest.mark.parametrize("user", [USER, "root"])
def test_the_state_s_folder_need_not_be_there(wired: Lab, far: FarEnd, user: str) -> None:
    """It is made before the gateway gives up the right to make folders, whoever it is then."""
    far.start()
    shutil.rmtree(wired.folder / "state", ignore_errors=True)
    configuration = far.configuration().replace('"tunnel.json"', '"state/of/tunnel.json"')
    configure_secretly(wired, configuration + AS_USER.replace(USER, user))
    gateway = wired.start_gateway()
    assert wired.client("lan3", "ping", TUNNELLED)["ok"]
    assert list(json.loads((wired.folder / "state" / "of" / "tunnel.json").read_text())) == [far.far.public]
    assert wired.stop_gateway() == 0
    assert "recorded handshake" not in gateway.errors()
    wired.folder.chmod(0o755)


def test_no_process_of_the_gateway_tells_a_key(wired: Lab, far: FarEnd) -> None:
    """Nor to the user that it has become, nor to anybody whom the control socket answers."""
    far.start(psk=True)
    configure_secretly(wired, far.configuration(psk=True) + AS_USER)
    gateway = wired.start_gateway()
    assert wired.client("lan3", "ping", TUNNELLED)["ok"]
    warden = warden_of(gateway)
    told = told_by_the_system(gateway).decode(errors="backslashreplace") + answers(wired)
    assert "bridge.privsep.warden" in told
    assert_no_key(far, told)
    assert readable_by_its_user(gateway, gateway.pid) == []
    assert readable_by_its_user(gateway, warden) == []
    assert not has_any_key(warden, far), "the warden is a program of its own and never reads one"
    assert has_any_key(gateway.pid, far), "else this search finds nothing"
    assert wired.stop_gateway() == 0
    wired.folder.chmod(0o755)


def has_any_key(pid: int, far: FarEnd) -> bool:
    """Whether a key, raw or in base64, is anywhere in a process' writable memory; root alone can look."""
    wanted = [base64.b64decode(file.text) for file in (far.ours, far.psk)]
    wanted += [file.text.strip().encode() for file in (far.ours, far.psk)]
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            words = line.split()
            if words[1].startswith("rw"):
                first, last = (int(edge, 16) for edge in words[0].split("-"))
                try:
                    memory.seek(first)
                    found = memory.read(last - first)
                except OSError:
                    continue
                if any(key in found for key in wanted):
                    return True
    return False
