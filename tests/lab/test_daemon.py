"""The daemon's life: one per socket, nothing left behind however it ends, reloads, hooks, and what it gives up."""

from __future__ import annotations

import base64
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bridge.control.client import ControlError, NobodyListens, stream
from lab.flows import LAN_TO_OFFLOAD
from lab.process import LabProcess
from lab.topology import CONFIGURATION, OFFLOAD_LIST, OFFLOADED, TAP0, TAP1, TUN0, TUNNELLED, VPN_ALIAS, Lab
from tests.lab.far_end import until

pytestmark = pytest.mark.lab

DEADLINE_S = 10.0
DEVICES = {"gw": {"tap0", "tap1", "tun0"}, "exit": {"vpn0"}}


@pytest.fixture
def fresh_lab(bare_lab: Lab) -> Iterator[Lab]:
    """The module's topology with the usual files and no gateway, before and after."""
    bare_lab.configure()
    yield bare_lab
    bare_lab.remove_gateway()


@pytest.fixture(scope="module", autouse=True)
def far_ends(bare_lab: Lab) -> None:
    bare_lab.serve()


def run_to_its_end(lab: Lab) -> tuple[int, str]:
    """Another `bridgectl run` on the same files; its exit code and what it said."""
    process = lab.namespaces["gw"].start_python("-m", "bridgectl", "run", "-c", str(lab.config_path))
    try:
        return process.wait(), process.errors()
    finally:
        process.stop()


def devices(lab: Lab) -> dict[str, set[str]]:
    return {name: {line.split()[0] for line in lab.namespaces[name].ip("-br link").splitlines()} for name in DEVICES}


def assert_nothing_is_left(lab: Lab, *, files: bool = True) -> None:
    until(lambda: not any(devices(lab)[name] & names for name, names in DEVICES.items()), "the devices are gone")
    assert lab.namespaces["gw"].ip("route show dev lo").strip() == ""
    assert "tun0" not in lab.namespaces["gw"].ip("route")
    if files:
        assert not list(lab.folder.glob("control.sock*"))


def seen_as(lab: Lab, destination: str) -> str:
    return str(lab.client("lan3", "ask", destination, "10")["seen_as"]).partition(":")[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_it_well_and_leaves_nothing(fresh_lab: Lab, number: signal.Signals) -> None:
    gateway = fresh_lab.start_gateway()
    assert all(devices(fresh_lab)[name] >= names for name, names in DEVICES.items())
    gateway.signal(number)
    assert gateway.wait() == 0
    assert_nothing_is_left(fresh_lab)
    with pytest.raises(NobodyListens):
        fresh_lab.ask("stats")


def test_it_can_be_stopped_over_its_socket(fresh_lab: Lab) -> None:
    gateway = fresh_lab.start_gateway()
    assert fresh_lab.ask("stop")["pid"] == gateway.pid
    assert gateway.wait() == 0
    assert_nothing_is_left(fresh_lab)


def test_a_kill_leaves_no_device_and_the_next_start_takes_over_the_socket(fresh_lab: Lab) -> None:
    gateway = fresh_lab.start_gateway()
    gateway.signal(signal.SIGKILL)
    gateway.wait()
    assert_nothing_is_left(fresh_lab, files=False)
    assert fresh_lab.socket_path.exists()
    fresh_lab.start_gateway()
    assert seen_as(fresh_lab, OFFLOADED) == TAP1


def test_a_second_run_on_the_socket_is_refused_and_the_first_goes_on(fresh_lab: Lab) -> None:
    gateway = fresh_lab.start_gateway()
    code, says = run_to_its_end(fresh_lab)
    assert code == 1
    assert f"another gateway (process {gateway.pid}) serves" in says
    assert fresh_lab.ask("stats")["version"] == 1


def test_a_name_that_is_taken_is_told_with_its_holder_and_nothing_is_left(fresh_lab: Lab) -> None:
    first = fresh_lab.start_gateway()
    other = fresh_lab.folder / "other"
    other.mkdir(exist_ok=True)
    (other / "offload.txt").write_text(OFFLOAD_LIST)
    (other / "gateway.toml").write_text(CONFIGURATION.replace('"br1"', '"br7"'))
    process = fresh_lab.namespaces["gw"].start_python("-m", "bridgectl", "run", "-c", str(other / "gateway.toml"))
    assert process.wait() == 1
    says = process.errors()
    process.stop()
    assert "the interface name tap0 is taken by process" in says
    assert f"process {first.pid} (" in says
    assert "there is no bridge br7" in says
    assert "vpn0 is taken in the namespace 'exit'" in says
    assert [path.name for path in other.glob("*.sock*")] == []


def test_a_configuration_that_is_wrong_ends_with_code_4_and_touches_nothing(fresh_lab: Lab) -> None:
    fresh_lab.configure(CONFIGURATION + "\n[dance]\nstep = 1\n[icmp]\nerrors_per_second = -1\n")
    code, says = run_to_its_end(fresh_lab)
    assert code == 4
    assert len([line for line in says.splitlines() if "gateway.toml:" in line]) == 2
    assert_nothing_is_left(fresh_lab)


def test_a_hang_up_takes_a_new_list_at_once(fresh_lab: Lab) -> None:
    gateway = fresh_lab.start_gateway()
    assert seen_as(fresh_lab, OFFLOADED) == TAP1
    assert seen_as(fresh_lab, TUNNELLED) == VPN_ALIAS
    fresh_lab.configure(offload_list="114.114.0.0/16\n203.0.113.0/24\n")
    gateway.signal(signal.SIGHUP)
    until(lambda: fresh_lab.ask("route.get", ip="203.0.113.1")["target"] == "tap1", "the new list holds")
    assert seen_as(fresh_lab, OFFLOADED) == TAP1


def test_a_reload_lists_its_moves_first_and_then_makes_them(fresh_lab: Lab) -> None:
    fresh_lab.start_gateway()
    fresh_lab.configure(offload_list="203.0.113.0/24\n")
    moves = fresh_lab.ask("reload", dry_run=True)["moves"]
    assert {move["prefix"]: (move["from"], move["to"]) for move in moves} == {
        "114.114.0.0/16": ("tap1", "vpn:hk"),
        "203.0.113.0/24": ("vpn:hk", "tap1"),
    }
    assert fresh_lab.ask("route.get", ip="203.0.113.1")["target"] == "vpn:hk"
    fresh_lab.ask("reload")
    assert fresh_lab.ask("route.get", ip="203.0.113.1")["target"] == "tap1"


def test_questions_and_reloads_that_come_during_a_reload_wait_for_it(fresh_lab: Lab) -> None:
    gateway = fresh_lab.start_gateway()
    many = "".join(f"{101 + index // 65536}.{index // 256 % 256}.{index % 256}.0/24\n" for index in range(50_000))
    fresh_lab.configure(offload_list=OFFLOAD_LIST + many)
    gateway.signal(signal.SIGHUP)
    questions = [("alias.show", {}), ("reload", {}), ("reload", {"dry_run": True}), ("arp.show", {}), ("reload", {})]
    with ThreadPoolExecutor(len(questions)) as pool:
        answers = list(pool.map(lambda question: fresh_lab.ask(question[0], **question[1]), questions))
    assert [answer["version"] for answer in answers] == [1] * len(questions)
    assert fresh_lab.ask("route.get", ip="101.0.9.1")["target"] == "tap1"


def test_a_reload_that_is_wrong_changes_nothing_and_tells_every_fault(fresh_lab: Lab) -> None:
    fresh_lab.start_gateway()
    fresh_lab.configure(CONFIGURATION + "\n[dance]\n", "203.0.113.0/24\nnonsense\n")
    with pytest.raises(ControlError) as refusal:
        fresh_lab.ask("reload")
    assert refusal.value.code == 4
    assert "offload.txt:2" in refusal.value.message
    assert "dance" in refusal.value.message
    assert fresh_lab.ask("route.get", ip="203.0.113.1")["target"] == "vpn:hk"


def test_keys_that_are_built_into_devices_cannot_be_reloaded(fresh_lab: Lab) -> None:
    fresh_lab.start_gateway()
    changed = CONFIGURATION.replace("192.168.200.2/24", "192.168.200.1/24").replace("mtu = 1420", "mtu = 1400")
    fresh_lab.configure(changed, "203.0.113.0/24\n")
    with pytest.raises(ControlError, match=r"tap0\.address.*vpn\.mtu.*restart"):
        fresh_lab.ask("reload")
    assert fresh_lab.ask("route.get", ip="203.0.113.1")["target"] == "vpn:hk"


HOOK = """\
#!/bin/sh -e
ip link set br0 alias {word} # both have the rights for this
echo "{word} $INTERFACE $ADDRESS $PEER_IP $DEFAULT_GW $(ip -br link show tap0 | cut -d' ' -f1)" >> {log}
"""


def test_hooks_run_while_the_ports_are_there_and_know_them(fresh_lab: Lab) -> None:
    log = fresh_lab.folder / "hooks.log"
    for word in ("up", "down"):
        path = fresh_lab.folder / f"{word}.sh"
        path.write_text(HOOK.format(word=word, log=log))
        path.chmod(0o755)
    fresh_lab.configure(CONFIGURATION + '\n[hooks]\nup = "./up.sh"\ndown = "./down.sh"\n')
    fresh_lab.start_gateway()
    until(lambda: log.exists() and log.read_text(), "the up hook has run")
    assert fresh_lab.stop_gateway() == 0
    assert log.read_text().splitlines() == [f"{word} tun0 {TUN0}   tap0" for word in ("up", "down")]
    log.unlink()


TUNNEL = """
[tunnel]
private_key_file = "private.key"
state_file = "tunnel.json"
[peer.hk]
public_key = "{key}"
"""


def configure_a_tunnel(lab: Lab, more: str = "") -> None:
    key = base64.b64encode(bytes(range(32))).decode()
    (lab.folder / "private.key").write_text(key)
    (lab.folder / "private.key").chmod(0o600)
    configuration = CONFIGURATION.replace('interface = "vpn0"\nnetns = "exit"\n', "")
    lab.configure(configuration + TUNNEL.format(key=key) + more)


def test_without_an_endpoint_senders_are_told(fresh_lab: Lab) -> None:
    """A node that cannot be reached is ICMP 3/1."""
    configure_a_tunnel(fresh_lab)
    fresh_lab.start_gateway()
    answer = fresh_lab.client("lan3", "ping", TUNNELLED)
    assert (answer["type"], answer["code"], answer["from"]) == (3, 1, TAP0)
    assert fresh_lab.client("lan3", "ping", OFFLOADED)["ok"]


def test_hooks_know_the_peer_s_address_and_the_kernel_s_own_next_hop(fresh_lab: Lab) -> None:
    up = fresh_lab.folder / "up.sh"
    up.write_text('#!/bin/sh\necho "$INTERFACE $PEER_IP $DEFAULT_GW" > told\n')
    up.chmod(0o755)
    configure_a_tunnel(fresh_lab, 'endpoint = "[2001:db8::1]:51820"\n[hooks]\nup = "up.sh"\n')
    fresh_lab.namespaces["gw"].ip("route add default via 192.168.200.1 dev br0 onlink")
    fresh_lab.start_gateway()
    told = fresh_lab.folder / "told"
    until(lambda: told.exists() and told.read_text(), "the up hook has run")
    assert told.read_text() == "tun0 2001:db8::1 192.168.200.1\n"
    fresh_lab.namespaces["gw"].ip("route del default")


def test_what_makes_root_is_given_up_once_the_devices_stand(fresh_lab: Lab) -> None:
    """Here it stays root; `test_privileges.py` has it become somebody."""
    fresh_lab.configure(CONFIGURATION + '[process]\nuser = "root"\n')
    gateway = fresh_lab.start_gateway()
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 1 << 1
    assert int(facts["CapInh"], 16) == 0
    assert facts["NoNewPrivs"] == "1"
    assert seen_as(fresh_lab, OFFLOADED) == TAP1


def test_the_control_socket_is_not_for_everyone(fresh_lab: Lab) -> None:
    fresh_lab.start_gateway()
    assert stat.S_IMODE(fresh_lab.socket_path.stat().st_mode) == 0o660


def told(manager: socket.socket, state: bytes) -> bytes:
    """The next datagram with that state; others, which the watchdog sends at any time, are passed over."""
    while True:
        datagram = manager.recv(1024)
        if state in datagram.split(b"\n"):
            return datagram


def test_the_service_manager_is_told_how_far_it_is(fresh_lab: Lab) -> None:
    path = fresh_lab.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        path.chmod(0o777)  # as systemd's is: whom the gateway becomes writes there
        manager.settimeout(DEADLINE_S)
        fresh_lab.start_gateway({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "300000"})
        ready = told(manager, b"READY=1")
        assert b"STATUS=forwarding on tap0, tap1, tun0, vpn" in ready
        told(manager, b"WATCHDOG=1")
        told(manager, b"WATCHDOG=1")
        fresh_lab.ask("reload")
        told(manager, b"RELOADING=1")
        told(manager, b"READY=1")
        fresh_lab.configure(CONFIGURATION + "[dance]\n")
        with pytest.raises(ControlError):
            fresh_lab.ask("reload")
        assert b"STATUS=a reload was refused" in told(manager, b"READY=1")
        fresh_lab.stop_gateway()
        told(manager, b"STOPPING=1")
    path.unlink()


def test_a_device_that_somebody_removes_ends_it_with_a_message(fresh_lab: Lab) -> None:
    gateway = fresh_lab.start_gateway()
    fresh_lab.namespaces["gw"].ip("link del tap1")
    assert gateway.wait() == 1
    assert "tap1" in gateway.errors()
    assert_nothing_is_left(fresh_lab)


def test_a_device_that_is_down_drops_with_a_reason_and_works_again_when_it_is_up(fresh_lab: Lab) -> None:
    fresh_lab.start_gateway()
    assert fresh_lab.client("lan3", "ping", OFFLOADED)["ok"]
    fresh_lab.namespaces["gw"].ip("link set tap1 down")
    knock = fresh_lab.namespaces["lan3"].start_python("-m", "lab.peers", "ping", OFFLOADED)
    until(lambda: fresh_lab.ask("stats")["drops"]["port.down"], "a frame is dropped because the port is down")
    knock.stop()
    fresh_lab.namespaces["gw"].ip("link set tap1 up")
    assert fresh_lab.client("lan3", "ping", OFFLOADED)["ok"]


def test_metrics_are_served_where_they_are_wanted(fresh_lab: Lab) -> None:
    fresh_lab.configure(CONFIGURATION.replace("[control]", '[control]\nmetrics = "127.0.0.1:9586"'))
    fresh_lab.start_gateway()
    fresh_lab.client("lan3", "ask", OFFLOADED, "10")
    fetch = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9586/metrics', timeout=5).read().decode())"
    text = fresh_lab.namespaces["gw"].python("-c", fetch)
    assert 'tapbridge_rx_packets_total{port="tap0"}' in text
    assert 'tapbridge_drops_total{reason="arp.no_answer"} 0.0' in text
    assert text.rstrip().endswith("# EOF")


def test_capture_shows_the_frames_of_a_port_while_somebody_listens(fresh_lab: Lab) -> None:
    fresh_lab.start_gateway()
    words = ("-m", "bridgectl", "capture", "--port", "tap1", "--count", "2", "--socket", str(fresh_lab.socket_path))
    listening: LabProcess = fresh_lab.namespaces["gw"].start(sys.executable, "-u", *words)
    lines: list[str] = []
    deadline = time.monotonic() + DEADLINE_S
    while listening.is_running and time.monotonic() < deadline:  # the first pings may come before it listens
        fresh_lab.client("lan3", "ping", LAN_TO_OFFLOAD.remote)
    lines = listening.finish().splitlines()
    listening.stop()
    assert len(lines) == 2
    assert all("tap1" in line for line in lines)


def test_the_default_nodes_port_is_captured_under_both_its_names(fresh_lab: Lab) -> None:
    fresh_lab.start_gateway()
    for name in ("vpn", "vpn:hk"):
        records = stream(fresh_lab.socket_path, "capture", {"port": name}, record_timeout_s=DEADLINE_S)
        assert next(records)["port"] == "vpn"
        fresh_lab.client("gw", "ping", TUNNELLED)
        assert next(records)["port"] == "vpn"
        records.close()
