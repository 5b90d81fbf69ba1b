"""`bridgectl` and a running daemon: every question, as a document and for people."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from bridgectl.bpf import BadFilter, Filter, NoLibrary
from bridgectl.top import bits, rates
from tests.bridgectl.conftest import Daemon, Run, document
from tests.conftest import ROOT
from wire import pcap
from wire.drop import Drop

C = ["-c", "gateway.toml"]


def lan(packet: Packet) -> bytes:
    return bytes(Ether(src="02:aa:00:00:00:03", dst="02:00:00:00:c8:02", type=0x0800) / packet)


QUERY = lan(IP(src="192.168.200.3", dst="8.8.8.8") / UDP(sport=5000, dport=53) / b"ask")
ECHO = lan(IP(src="192.168.200.3", dst="114.114.114.114") / ICMP(id=7))


def walked(daemon: Daemon, *frames: bytes, port: str = "tap0") -> None:
    """Let frames pass before anything is asked."""
    for frame in frames:
        daemon.gateway.receive(port, frame, daemon.loop.clock())


# ARP


def test_arp_shows_the_tables(run: Run, daemon: Daemon) -> None:
    said = document(run("arp", "-j", *C))
    assert said["version"] == 1
    assert [(table["port"], table["subnet"], table["slots"], table["used"]) for table in said["tables"]] == [
        ("tap0", "192.168.200.0/24", 256, 1),
        ("tap1", "192.168.1.0/24", 256, 0),
    ]
    assert said["tables"][0]["entries"] == [
        {"ip": "192.168.200.3", "mac": "02:aa:00:00:00:03", "state": "static", "age_s": 0.0, "static": True}
    ]
    assert document(run("arp", "show", "--port", "tap1", "-j", *C))["tables"][0]["port"] == "tap1"
    assert run("--port", "tap0", "arp", *C).stdout.splitlines() == [
        "tap0 192.168.200.0/24: 1 of 256 slots used",
        "IP             MAC                STATE   AGE",
        "192.168.200.3  02:aa:00:00:00:03  static    -",
    ]


def test_arp_add_and_del_change_an_entry(run: Run, daemon: Daemon) -> None:
    run("arp", "add", "192.168.200.9", "02:aa:00:00:00:09", *C)
    assert document(run("arp", "-j", *C))["tables"][0]["used"] == 2
    assert run("arp", "del", "192.168.200.9", *C).stdout == "192.168.200.9 deleted from tap0\n"
    assert run("arp", "del", "192.168.200.9", *C, code=1).stderr == "Error: 192.168.200.9 has no entry on tap0\n"


@pytest.mark.parametrize(
    "line",
    [
        "arp add 192.168.7.1 02:aa:00:00:00:09",
        "arp add 192.168.200.9 nonsense",
        "arp add 192.168.200.9 ff:ff:ff:ff:ff:ff",
        "arp add 192.168.200.2 02:aa:00:00:00:09",
        "arp add 192.168.1.9 02:aa:00:00:00:09 --port tap0",
        "arp del 10.0.0.1",
        "arp probe 10.0.0.1",
        "arp probe 192.168.200.255",
        "arp show --port tun0",
        "arp flush --port eth0",
        "capture --port eth0",
    ],
)
def test_an_address_outside_the_subnet_or_an_unknown_port_is_usage(run: Run, daemon: Daemon, line: str) -> None:
    run(*line.split(), *C, code=2)


def test_arp_add_lets_the_frames_go_that_waited(run: Run, daemon: Daemon) -> None:
    walked(daemon, lan(IP(src="192.168.200.3", dst="192.168.200.9") / UDP(sport=1, dport=2)))
    run("arp", "add", "192.168.200.9", "02:aa:00:00:00:09", *C)
    assert daemon.ports["tap0"].sent[-1][0][:6].hex(":") == "02:aa:00:00:00:09"


def test_arp_probe_waits_for_the_answer(run: Run, daemon: Daemon) -> None:
    said = document(run("arp", "probe", "192.168.1.1", "-j", *C))
    assert (said["port"], said["entry"]["mac"], said["entry"]["state"]) == ("tap1", "02:bb:00:00:00:01", "reachable")
    assert run("arp", "probe", "192.168.1.1", *C).stdout.startswith("192.168.1.1 is at 02:bb:00:00:00:01 on tap1, ")
    assert run("arp", "flush", *C).stdout == "1 entries flushed\n"


def test_arp_probe_without_an_answer_ends_with_1(run: Run, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgectl.arp._PROBE_S", 0.05)
    assert run("arp", "probe", "192.168.1.7", *C, code=1).stderr == "Error: 192.168.1.7 does not answer on tap1\n"


# Links and flows


def test_a_forward_that_nobody_uses_is_idle_since_the_start(run: Run, daemon: Daemon) -> None:
    daemon.gateway.start(daemon.loop.clock())
    (link,) = document(run("alias", "-j", *C))["links"]
    assert link["state"] == "static"
    assert 0 <= link["idle_s"] < 60


def test_alias_shows_links_and_flushes_them(run: Run, daemon: Daemon) -> None:
    walked(daemon, QUERY, ECHO)
    said = document(run("alias", "-j", *C))
    assert said["max_links"] == 65536
    links = {link["protocol"]: link for link in said["links"]}
    assert set(links) == {"tcp", "udp", "icmp"}
    udp = links["udp"]
    assert list(udp) == ["protocol", "inside", "outside", "on", "state", "idle_s", "expires_s", "packets", "bytes"]
    assert (udp["inside"], udp["outside"], udp["on"]) == ("192.168.200.3:5000", "192.168.192.210:5000", "vpn")
    assert (udp["packets"], udp["bytes"]) == (1, 31)
    assert 299 < udp["expires_s"] <= 300
    assert links["icmp"]["outside"] == "192.168.1.2:7"
    assert (links["tcp"]["state"], links["tcp"]["outside"], links["tcp"]["expires_s"]) == (
        "static",
        "192.168.1.2:8080",
        None,
    )
    assert run("alias", *C).stdout.splitlines()[-1] == "3 links, at most 65536"
    assert document(run("alias", "flush", "--inside", "192.168.200.9", "-j", *C)) == {"version": 1, "flushed": 0}
    assert run("alias", "flush", *C).stdout == "2 links flushed\n"


def test_flows_show_both_ends(run: Run, daemon: Daemon) -> None:
    assert run("flows", *C).stdout == "no flows\n"
    walked(daemon, QUERY, QUERY)
    (flow,) = document(run("flows", "-j", *C))["flows"]
    assert 0 <= flow.pop("idle_s") < 60
    assert flow == {
        "in": "tap0",
        "out": "vpn",
        "protocol": "udp",
        "inside": "192.168.200.3:5000",
        "outside": "8.8.8.8:53",
        "packets": 2,
        "bytes": 62,
        "fast": False,
    }


# Counters


def test_stats_show_ports_and_every_drop_reason(run: Run, daemon: Daemon) -> None:
    walked(daemon, QUERY, b"short")
    said = document(run("stats", "-j", *C))
    assert said["ports"]["tap0"] == {"rx_packets": 2, "rx_bytes": len(QUERY) + 5, "tx_packets": 0, "tx_bytes": 0}
    assert set(said["ports"]) == {"tap0", "tap1", "tun0", "vpn"}
    assert said["drops"] == dict.fromkeys([reason.value for reason in Drop], 0) | {"eth.short": 1}
    assert said["drops_by_port"]["tap0"] == {"eth.short": 1}
    assert said["uptime_s"] >= 0
    assert isinstance(said["fast_path"], dict)
    table = run("stats", *C).stdout
    assert re.search(r"^eth\.short +1$", table, re.MULTILINE)
    assert re.search(r"^ip\.ttl +0$", table, re.MULTILINE)


def test_watch_repeats_until_it_is_interrupted(folder: Path, daemon: Daemon) -> None:
    with program(folder, "stats", "-j", "--watch", "0.1", *C) as running:
        assert running.stdout is not None
        lines = [json.loads(running.stdout.readline()) for _ in range(3)]
        running.send_signal(signal.SIGINT)
        assert (running.wait(), errors_of(running)) == (0, "")
    assert lines[0]["uptime_s"] < lines[2]["uptime_s"]


def test_top_shows_one_interval_to_a_pipe(run: Run, daemon: Daemon) -> None:
    walked(daemon, QUERY, b"short")
    screen = run("top", "--watch", "0.1", *C).stdout
    assert "8.8.8.8:53" in screen
    assert "eth.short" in screen
    assert set(document(run("top", "-j", "--watch", "0.1", *C))["ports"]["tap0"]) == {
        f"{key}_per_s" for key in ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")
    }


def new_terminal() -> tuple[int, int]:
    """Both ends of a pseudo-terminal; a container without devpts has none."""
    try:
        return pty.openpty()
    except OSError as error:
        pytest.skip(f"no pseudo-terminal here: {error}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_top_leaves_the_terminal_as_it_was(folder: Path, daemon: Daemon, number: signal.Signals) -> None:
    walked(daemon, QUERY)
    terminal, its_side = new_terminal()
    with program(folder, "top", "--watch", "0.1", *C, stdout=its_side) as running:
        os.close(its_side)
        painted = b""
        while b"8.8.8.8:53" not in painted:
            painted += os.read(terminal, 4096)
        running.send_signal(number)
        rest = b""
        while b"\x1b[?1049l" not in rest or b"\x1b[?25h" not in rest:
            rest += os.read(terminal, 4096)
        assert (running.wait(), errors_of(running)) == (0, "")
    os.close(terminal)
    assert b"\x1b[?1049h" in painted


def test_tables_on_a_terminal_have_colours_unless_they_are_not_wanted(folder: Path, daemon: Daemon) -> None:
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        terminal, its_side = new_terminal()
        with program(folder, "arp", *C, stdout=its_side, TERM="xterm-256color", **environment) as running:
            os.close(its_side)
            assert running.wait() == 0
        shown = os.read(terminal, 65536)
        os.close(terminal)
        assert b"192.168.200.3" in shown
        assert (b"\x1b[1;36m" in shown, b"\x1b" in shown) == (coloured, coloured)


def test_rates_are_differences_over_the_daemons_own_time() -> None:
    def sample(uptime_s: float, packets: int) -> dict[str, object]:
        port = {"rx_packets": packets, "rx_bytes": packets * 100, "tx_packets": 0, "tx_bytes": 0}
        flow = {"in": "tap0", "protocol": "udp", "inside": "a", "outside": "b", "bytes": packets * 100}
        stats = {"uptime_s": uptime_s, "ports": {"tap0": port}, "drops": {"eth.short": packets, "ip.ttl": 0}}
        return {"stats": stats, "flows": [flow]}

    said = rates(sample(10, 100), sample(12, 300))
    assert said["ports"]["tap0"]["rx_packets_per_s"] == 100
    assert said["talkers"][0]["bits_per_s"] == 80_000
    assert said["drops"] == {"eth.short": {"packets": 300, "per_s": 100}}
    assert [bits(value) for value in (1, 1500, 2_000_000, 3.4e9)] == [
        "1 bit/s",
        "1.5 kbit/s",
        "2.0 Mbit/s",
        "3.4 Gbit/s",
    ]


# Routes, traces, reload


def test_a_running_daemon_answers_for_itself(run: Run, folder: Path, daemon: Daemon) -> None:
    (folder / "china.txt").write_text("")
    said = run("route", "get", "114.114.114.114", "-j", *C)
    assert (document(said)["target"], said.stderr) == ("tap1", "")
    assert run("route", "get", "114.114.114.114", "--socket", "control.sock").stdout.startswith(
        "114.114.114.114 -> tap1"
    )
    assert document(run("trace", "-j", "icmp", "192.168.200.3", "8.8.8.8", *C))["verdict"] == "send"
    assert run("trace", "--port", "eth0", "--hex", "00", *C, code=2).stdout == ""


def test_route_diff_compares_with_the_table_in_use_and_counts_its_flows(run: Run, folder: Path, daemon: Daemon) -> None:
    walked(daemon, QUERY, ECHO)
    (folder / "china.txt").write_text("8.8.8.0/24\n")  # edited in place: the daemon still uses the old list
    expected = [
        {"prefix": "8.8.8.0/24", "from": "vpn:hk", "to": "tap1", "flows": 1},
        {"prefix": "114.114.114.0/24", "from": "tap1", "to": "vpn:hk", "flows": 1},
    ]
    assert document(run("route", "diff", "china.txt", "-j", *C)) == {"version": 1, "moves": expected}
    assert document(run("route", "diff", "china.txt", "-j", "--socket", "control.sock"))["moves"] == expected
    assert document(run("reload", "--dry-run", "-j", *C)) == {"version": 1, "moves": expected}
    assert run("reload", "--dry-run", *C).stdout.splitlines() == [
        "PREFIX            FROM    TO      FLOWS",
        "8.8.8.0/24        vpn:hk  tap1        1",
        "114.114.114.0/24  tap1    vpn:hk      1",
    ]


def test_reload_tells_warnings(run: Run, daemon: Daemon) -> None:
    result = run("reload", *C)
    assert (result.stdout, result.stderr) == ("reloaded\n", "gateway.toml:9: of no effect\n")


# Captures


def program(
    folder: Path, *words: str, stdout: int | IO[bytes] = subprocess.PIPE, **more: str
) -> subprocess.Popen[bytes]:
    """`bridgectl` as a process, SIGINT ignored at its start: so a shell without job control begins what goes into the
    background."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TZ": "UTC", **more}
    return subprocess.Popen(
        ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-m", "bridgectl", *words],
        cwd=folder,
        env=environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def errors_of(running: subprocess.Popen[bytes]) -> str:
    assert running.stderr is not None
    return running.stderr.read().decode()


def deliver_until(daemon: Daemon, running: subprocess.Popen[bytes], *frames: bytes) -> None:
    """Let frames arrive again and again until the program ends: there is no telling when it begins to listen."""
    for _ in range(600):
        daemon.ports["tap0"].deliver(*frames)
        try:
            running.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        return
    running.kill()
    raise AssertionError(errors_of(running))


def test_capture_prints_a_line_for_each_frame(folder: Path, daemon: Daemon) -> None:
    with program(folder, "capture", "--port", "tap0", "--count", "2", *C) as running:
        deliver_until(daemon, running, QUERY)
        assert running.stdout is not None
        lines = running.stdout.read().decode().splitlines()
        assert (running.returncode, len(lines), errors_of(running)) == (0, 2, "")
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{6} tap0 In  192\.168\.200\.3:5000 > 8\.8\.8\.8:53 UDP, 3 bytes, ttl 64", lines[0]
    )


def test_capture_ends_with_1_where_the_gateway_ends_first(folder: Path, daemon: Daemon) -> None:
    with program(folder, "capture", "--port", "tap0", *C) as running:
        assert running.stdout is not None
        while not select.select([running.stdout], [], [], 0.05)[0]:
            daemon.ports["tap0"].deliver(QUERY)
        daemon.close()
        assert (running.wait(), errors_of(running)) == (1, "Error: the gateway has ended\n")


def test_capture_writes_pcapng_with_directions(folder: Path, daemon: Daemon) -> None:
    from scapy.utils import RawPcapNgReader  # noqa: PLC0415 - used here only

    request = lan(IP(src="192.168.200.3", dst="192.168.200.2") / ICMP(id=3))
    with program(folder, "capture", "--port", "tap0", "--count", "4", "-w", "out.pcapng", *C) as running:
        deliver_until(daemon, running, request)
        assert (running.returncode, errors_of(running)) == (0, "4 frames\n")
    with RawPcapNgReader(str(folder / "out.pcapng")) as reader:
        frames = [(meta.ifname, meta.direction, Ether(data)[ICMP].type) for data, meta in reader]
    assert frames == [(b"tap0", 1, 8), (b"tap0", 2, 0)] * 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_capture_into_a_pipe_is_flushed_frame_by_frame(folder: Path, daemon: Daemon, number: signal.Signals) -> None:
    with program(folder, "capture", "--port", "tap0", "-w", "-", *C) as running:
        assert running.stdout is not None
        os.set_blocking(running.stdout.fileno(), False)
        data = b""
        for _ in range(600):
            daemon.ports["tap0"].deliver(QUERY)
            try:
                running.wait(0.02)
            except subprocess.TimeoutExpired:
                data += running.stdout.read() or b""
            if QUERY in data:
                break
        running.send_signal(number)
        assert running.wait() == 0
    (folder / "piped.pcapng").write_bytes(data)
    with (folder / "piped.pcapng").open("rb") as file:
        assert next(pcap.read(file, "piped")).data == QUERY


@pytest.mark.parametrize("words", [["-w", "-"], []])
def test_capture_ends_quietly_where_the_reader_goes_away(folder: Path, daemon: Daemon, words: list[str]) -> None:
    reading, writing = os.pipe()
    with program(folder, "capture", "--port", "tap0", *words, *C, stdout=writing) as running:
        os.close(writing)
        os.close(reading)
        deliver_until(daemon, running, QUERY)
        assert running.returncode == 0
        assert re.fullmatch(r"(\d+ frames\n)?", errors_of(running))


def libpcap() -> bool:
    try:
        Filter("ip", 1).close()
    except NoLibrary:
        return False
    return True


needs_libpcap = pytest.mark.skipif(not libpcap(), reason="no libpcap here")


@needs_libpcap
def test_capture_filters_in_the_language_of_tcpdump(folder: Path, daemon: Daemon) -> None:
    with program(folder, "capture", "--port", "tap0", "--count", "2", "--filter", "udp port 53", *C) as running:
        deliver_until(daemon, running, ECHO, QUERY, ECHO)
        assert running.stdout is not None
        assert running.stdout.read().decode().count("UDP") == 2


@needs_libpcap
def test_a_filter_that_makes_no_sense_is_usage(run: Run, daemon: Daemon) -> None:
    assert "nonsense" in run("capture", "--port", "tap0", "--filter", "nonsense and (", *C, code=2).stderr


@needs_libpcap
def test_filters_know_ethernet_and_raw_ip() -> None:
    for link, header in ((1, 14), (12, 0)):
        compiled = Filter("host 8.8.8.8 and udp dst port 53", link)
        assert compiled.matches(QUERY[14 - header :])
        assert not compiled.matches(ECHO[14 - header :])
        assert not compiled.matches(b"")
        compiled.close()
    with pytest.raises(BadFilter):
        Filter("ether host 1", 1)
    with pytest.raises(BadFilter, match="host"):
        Filter("host \udcff", 1)  # a byte of the command line that is no UTF-8


def test_without_libpcap_filters_say_what_is_missing(run: Run, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgectl.bpf._LIBRARIES", ("libno-such-thing.so",))
    result = run("capture", "--port", "tap0", "--filter", "udp", *C, code=1)
    assert "libpcap" in result.stderr


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="no tcpdump here")
def test_tcpdump_reads_what_capture_pipes(folder: Path, daemon: Daemon) -> None:
    with program(folder, "capture", "--port", "tap0", "--count", "1", "-w", "-", *C) as running:
        reader = subprocess.Popen(
            ["tcpdump", "-nr", "-"], stdin=running.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        deliver_until(daemon, running, QUERY)
        with reader:
            assert reader.stdout is not None
            assert b"IP 192.168.200.3.5000 > 8.8.8.8.53" in reader.stdout.read()
