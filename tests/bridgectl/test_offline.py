"""`bridgectl` where no daemon runs: answers from the configuration, and the exit codes."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from bridge.config.load import load
from tests.bridgectl.conftest import Run, document
from tests.conftest import ROOT
from wire import pcap

NOTE = "The daemon is not running: answered from gateway.toml.\n"


# Exit codes


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "route get",
        "route get 1.2.3",
        "route get 1.2.3.256 -c gateway.toml",
        "arp add 192.168.200.9",
        "trace",
        "trace --hex 00 udp 1.2.3.4:1 5.6.7.8:2",
        "trace -c gateway.toml --port eth0 --hex 00",
        "trace -c gateway.toml --hex 0",
        "trace -c gateway.toml udp 192.168.200.3 8.8.8.8",
        "trace -c gateway.toml udp 192.168.200.3:5000 8.8.8.8:66000",
        "trace -c gateway.toml tcp 192.168.200.3:1 8.8.8.8:2 flags=X",
        "trace -c gateway.toml gre 192.168.200.3 8.8.8.8",
        "trace -c gateway.toml icmp 192.168.200.3 8.8.8.8 --frame 2",
        "capture",
        "capture --port tap0 --count 0",
        "replay -c gateway.toml",
        "replay -c gateway.toml --out out --in tap0",
        "replay -c gateway.toml --out out --in eth0=x.pcap",
        "replay -c gateway.toml --out out --linger -1",
        "replay -c gateway.toml --out out --linger nan",
        "replay -c gateway.toml --out out --seed x",
        "stats --watch=0",
        "stats --watch=nan",
        "completion tcsh",
    ],
)
def test_wrong_usage_ends_with_2(run: Run, line: str) -> None:
    result = run(*line.split(), code=2)
    assert result.stdout == ""
    assert "Error: " in result.stderr


@pytest.mark.parametrize(
    "line",
    [
        "stats",
        "arp",
        "arp show --port tap0",
        "arp flush",
        "arp add 192.168.200.9 02:00:00:00:00:01",
        "arp del 192.168.200.9",
        "arp probe 192.168.200.9",
        "alias",
        "alias flush",
        "flows",
        "reload",
        "reload --dry-run",
        "capture --port tap0",
        "top",
    ],
)
def test_questions_for_the_daemon_end_with_3_where_none_runs(run: Run, line: str) -> None:
    for more in ([], ["-c", "gateway.toml"], ["--socket", "nothing.sock"]):
        result = run(*line.split(), *more, code=3)
        assert (result.stdout, "the daemon is not running" in result.stderr) == ("", True)


@pytest.mark.parametrize("port", ["NONSENSE", "eth0", "", "tap0:hk", "vpn:", "TAP0"])
def test_a_port_that_no_gateway_has_is_usage_before_anybody_is_asked(run: Run, port: str) -> None:
    said = run("capture", "--port", port, code=2).stderr
    assert "is no port: tap0, tap1, tun0, vpn or vpn:NODE" in said


@pytest.mark.parametrize("port", ["tap0", "tap1", "tun0", "vpn", "vpn:hk"])
def test_a_port_that_a_gateway_may_have_is_asked_for(run: Run, port: str) -> None:
    run("capture", "--port", port, code=3)


@pytest.mark.parametrize("line", ["route", "route get 8.8.8.8", "route diff china.txt", "trace icmp 1.2.3.4 8.8.8.8"])
def test_routes_and_traces_need_a_daemon_or_a_configuration(run: Run, line: str) -> None:
    run(*line.split(), code=3)
    run(*line.split(), "-c", "gateway.toml")


@pytest.mark.parametrize(
    "line",
    ["run", "check", "stats", "arp", "route get 8.8.8.8", "trace icmp 1.2.3.4 8.8.8.8", "replay --out out", "top"],
)
def test_a_configuration_that_is_missing_or_invalid_ends_with_4_and_all_faults(
    run: Run, folder: Path, line: str
) -> None:
    assert run(*line.split(), "-c", "missing.toml", code=4).stdout == ""
    (folder / "bad.toml").write_text('[tap0]\naddress = "nonsense"\nmtu = 1\nunknown = 1\n')
    result = run(*line.split(), "-c", "bad.toml", code=4)
    faults = result.stderr.splitlines()
    assert [fault.split(" ")[0] for fault in faults] == ["bad.toml:2:", "bad.toml:3:", "bad.toml:4:"]
    (folder / "bad.toml").write_text("[tap0\n")
    assert run(*line.split(), "-c", "bad.toml", code=4).stderr.startswith("bad.toml:1: ")
    assert not (folder / "out").exists()


def test_a_bad_line_of_a_prefix_list_is_a_fault_of_the_configuration(run: Run, folder: Path) -> None:
    (folder / "china.txt").write_text("1.2.3.0/24\nnonsense\n")
    assert run("route", "-c", "gateway.toml", code=4).stderr.startswith("china.txt:2: ")


@pytest.mark.parametrize(
    ("line", "code"),
    [("--version", 0), ("--help", 0), ("arp --help", 0), ("stats", 3), ("route get", 2), ("check -c missing.toml", 4)],
)
def test_the_program_itself_ends_with_these_codes(folder: Path, line: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bridgectl", *line.split()],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_the_version_is_that_of_the_project(run: Run) -> None:
    import tomllib  # noqa: PLC0415 - used here only

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run("--version").stdout == f"bridgectl {version}\n"


@pytest.mark.parametrize("shell", ["zsh", "fish", "bash"])
def test_completions_are_those_of_the_shell(run: Run, shell: str) -> None:
    assert "_BRIDGECTL_COMPLETE" in run("completion", shell).stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("-j rou", ["route"]),
        ("route ", ["diff", "get", "show"]),
        ("-c gateway.toml alias fl", ["flush"]),
        ("route get --js", ["--json"]),
        ("completion f", ["fish"]),
    ],
)
def test_a_shell_completes_words_and_options(folder: Path, typed: str, offered: list[str]) -> None:
    words = f"bridgectl {typed}".split(" ")
    environment = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "bridgectl"],
        env={"PYTHONPATH": str(ROOT), "_BRIDGECTL_COMPLETE": "bash_complete", **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [f"plain,{word}" for word in offered]


# Routes


@pytest.mark.parametrize(
    ("address", "prefix", "target", "source"),
    [
        ("114.114.114.114", "114.114.114.0/24", "tap1", "china.txt:1"),
        ("9.9.9.9", "9.9.9.0/24", "vpn:sg", "route/sg:1"),
        ("8.8.8.8", "0.0.0.0/0", "vpn:hk", "vpn.node"),
        ("192.168.200.2", "192.168.200.2/32", "local", "gateway.toml:3"),
        ("192.168.192.210", "192.168.192.210/32", "local", "gateway.toml:14"),
        ("192.168.192.211", "192.168.192.211/32", "tun0", "gateway.toml:12"),
        ("10.1.1.1", "10.0.0.0/8", "unreachable", "built-in"),
    ],
)
def test_route_get_says_what_decides(run: Run, address: str, prefix: str, target: str, source: str) -> None:
    said = {"version": 1, "destination": address, "prefix": prefix, "target": target, "source": source}
    for line in (
        ["-j", "route", "get", address, "-c", "gateway.toml"],
        ["route", "get", address, "-j", "-c", "gateway.toml"],
        ["route", "-j", "get", "--config", "gateway.toml", address],
    ):
        result = run(*line)
        assert document(result) == said
        assert result.stderr == NOTE
    result = run("route", "get", address, "-c", "gateway.toml")
    assert result.stdout == f"{address} -> {target}  by {prefix}  ({source})\n"


def test_route_show_counts_prefixes_and_addresses(run: Run) -> None:
    rows = document(run("route", "-j", "-c", "gateway.toml"))["targets"]
    assert sum(row["addresses"] for row in rows) == 2**32
    assert {"target": "vpn:sg", "prefixes": 1, "addresses": 256} in rows
    table = run("route", "-c", "gateway.toml").stdout.splitlines()
    assert table[0].split() == ["TARGET", "PREFIXES", "ADDRESSES"]
    assert len({len(line) for line in table}) == 1  # aligned, nothing behind the last column


def test_route_diff_puts_a_file_in_the_place_of_the_list_of_its_name(run: Run, folder: Path) -> None:
    (folder / "new").mkdir()
    (folder / "new" / "china.txt").write_text("114.114.115.0/24\n")
    (folder / "new" / "sg").write_text("")
    moves = document(run("route", "diff", "-j", "new/china.txt", "new/sg", "-c", "gateway.toml"))
    assert moves == {
        "version": 1,
        "moves": [
            {"prefix": "9.9.9.0/24", "from": "vpn:sg", "to": "vpn:hk", "flows": 0},
            {"prefix": "114.114.114.0/24", "from": "tap1", "to": "vpn:hk", "flows": 0},
            {"prefix": "114.114.115.0/24", "from": "vpn:hk", "to": "tap1", "flows": 0},
        ],
    }


def test_route_diff_takes_a_file_of_another_name_for_all_offload_lists(run: Run, folder: Path) -> None:
    (folder / "other.txt").write_text("223.5.5.0/24\n")
    moves = document(run("route", "diff", "-j", "other.txt", "-c", "gateway.toml"))["moves"]
    assert [(move["prefix"], move["to"]) for move in moves] == [("114.114.114.0/24", "vpn:hk")]
    assert run("route", "diff", "more.txt", "-c", "gateway.toml").stdout == "nothing moves\n"


def test_route_diff_tells_lists_of_one_name_apart_by_their_folders(run: Run, folder: Path) -> None:
    for name in ("more", "new"):
        (folder / name).mkdir()
    (folder / "more" / "china.txt").write_text("36.0.0.0/8\n")
    (folder / "new" / "china.txt").write_text("")
    text = (folder / "gateway.toml").read_text()
    (folder / "gateway.toml").write_text(text.replace('"more.txt"', '"more/china.txt"'))
    for files, moved in (
        (["china.txt"], []),
        (["more/china.txt"], []),
        (["more/china.txt", "china.txt"], []),
        (["more/china.txt", "new/china.txt"], ["114.114.114.0/24"]),
    ):
        moves = document(run("route", "diff", "-j", *files, "-c", "gateway.toml"))["moves"]
        assert [move["prefix"] for move in moves] == moved, files


def test_route_diff_takes_a_file_with_a_peers_name_for_its_first_route_file(run: Run, folder: Path) -> None:
    with (folder / "gateway.toml").open("a") as file:
        file.write("[tunnel]\n[peer.us]\n")
    (folder / "us").write_text("8.8.8.0/24\n")
    moves = document(run("route", "diff", "-j", "us", "-c", "gateway.toml"))["moves"]
    assert moves == [{"prefix": "8.8.8.0/24", "from": "vpn:hk", "to": "vpn:us", "flows": 0}]


def test_route_diff_names_the_faults_of_the_changed_list(run: Run, folder: Path) -> None:
    (folder / "other.txt").write_text("\n300.1.2.0/24\n")
    assert (
        run("route", "diff", "other.txt", "-c", "gateway.toml", code=4)
        .stderr.splitlines()[1]
        .startswith("other.txt:2:")
    )
    run("route", "diff", "nowhere.txt", "-c", "gateway.toml", code=4)


EXIT = """
[tun0]
address = "10.8.0.1/24"
[tunnel]
private_key_file = "private.key"
state_file = "tunnel.json"
[peer.alice]
public_key = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
allowed_ips = ["10.8.0.2/32"]
fallback = "bob"
[peer.bob]
public_key = "AgIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
allowed_ips = ["10.8.0.3/32"]
exit = true
"""


def test_check_shows_the_tunnel_of_an_exit_node_and_its_peers(run: Run, folder: Path) -> None:
    (folder / "route" / "sg").unlink()
    with open(os.open(folder / "private.key", os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(base64.b64encode(bytes(range(32))).decode())
    (folder / "gateway.toml").write_text(EXIT)
    said = document(run("check", "-j", "-c", "gateway.toml"))
    assert [(port["port"], port["mtu"], port["next_hop"]) for port in said["ports"]] == [
        ("tun0", 1420, None),
        ("vpn", 1420, None),
    ]
    assert [(peer["peer"], peer["fallback"], peer["exit"]) for peer in said["peers"]] == [
        ("alice", "bob", False),
        ("bob", None, True),
    ]
    (warning,) = said["warnings"]
    assert "exit: has no effect without [tap1]" in warning
    assert "alice" in run("check", "-c", "gateway.toml").stdout
    announcing = EXIT.replace("[tunnel]\n", '[tunnel]\nannounce = ["10.20.0.0/16"]\n').replace(
        "exit = true\n", 'exit = true\naccept = ["192.168.0.0/16"]\n'
    )
    (folder / "gateway.toml").write_text(announcing)
    said = document(run("check", "-j", "-c", "gateway.toml"))
    assert said["announced"] == ["10.20.0.0/16"]
    assert [peer["accept"] for peer in said["peers"]] == [[], ["192.168.0.0/16"]]
    assert "announced to peers: 10.20.0.0/16" in run("check", "-c", "gateway.toml").stdout


def test_check_ends_with_code_4_where_others_may_read_a_preshared_key(run: Run, folder: Path) -> None:
    (folder / "route" / "sg").unlink()
    for name, mode in (("private.key", 0o600), ("alice.psk", 0o644)):
        with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(base64.b64encode(bytes(range(32))).decode())
        (folder / name).chmod(mode)
    text = EXIT.replace('fallback = "bob"\n', 'fallback = "bob"\npreshared_key_file = "alice.psk"\n')
    (folder / "gateway.toml").write_text(text)
    said = run("check", "-c", "gateway.toml", code=4).stderr
    assert "gateway.toml:11: peer.alice.preshared_key_file: " in said
    assert "has mode 0644, others may read the key: chmod 0600" in said
    (folder / "alice.psk").chmod(0o600)
    run("check", "-c", "gateway.toml")


def test_an_exit_node_is_traced_from_its_peers(run: Run, folder: Path) -> None:
    (folder / "gateway.toml").write_text(EXIT)
    words = ("trace", "-j", "-c", "gateway.toml", "icmp")
    told = document(run(*words, "10.8.0.2", "8.8.8.8", "--port", "vpn:alice"))
    assert [out["port"] for out in told["out"]] == ["tun0"]
    assert document(run(*words, "8.8.8.8", "10.8.0.2"))["out"][0]["port"] == "vpn:alice", "from tun0, the first port"
    assert document(run(*words, "10.8.0.3", "8.8.8.8", "--port", "vpn:alice"))["drop"] == "tunnel.inner_source"
    assert "name a node" in run(*words, "10.8.0.3", "8.8.8.8", "--port", "vpn", code=2).stderr
    (folder / "gateway.toml").write_text(EXIT[EXIT.index("[tunnel]") :])
    assert "name a node" in run(*words, "10.8.0.3", "8.8.8.8", code=2).stderr
    assert document(run("route", "get", "10.8.0.2", "-j", "-c", "gateway.toml"))["target"] == "vpn:alice"


# Traces


@pytest.mark.parametrize(
    ("words", "packet"),
    [
        ("udp 192.168.200.3:5000 8.8.8.8:53", UDP(sport=5000, dport=53)),
        ("udp 192.168.200.3:5000 8.8.8.8:53 size=3 df=1", UDP(sport=5000, dport=53) / bytes(3)),
        ("tcp 192.168.200.3:5000 8.8.8.8:443", TCP(sport=5000, dport=443, flags="S", seq=1, window=65535)),
        ("icmp 192.168.200.3 8.8.8.8 size=8", ICMP(id=1, seq=1) / bytes(8)),
    ],
)
def test_words_become_the_packet_that_a_host_would_send(run: Run, words: str, packet: Packet) -> None:
    sent = document(run("trace", "-j", "-c", "gateway.toml", *words.split()))
    assert sent["verdict"] == "send"
    (out,) = sent["out"]
    flags = "DF" if "df=1" in words else 0
    assert out["port"] == "vpn"
    assert out["hex"] == bytes(IP(src="192.168.192.210", dst="8.8.8.8", ttl=63, flags=flags) / packet).hex()
    assert out["summary"].startswith("192.168.192.210")
    assert [step["room"] for step in sent["steps"]] == ["wire", "route", "alias"]


def test_the_flags_of_a_tcp_segment_are_said_in_letters(run: Run) -> None:
    words = "trace -j -c gateway.toml tcp 192.168.200.3:5000 8.8.8.8:443 flags=R"
    assert document(run(*words.split()))["drop"] == "alias.no_state"


def test_trace_tells_every_verdict(run: Run) -> None:
    def verdict(*words: str) -> tuple[str, str | None]:
        said = document(run("trace", "-j", "-c", "gateway.toml", *words))
        assert set(said) == {"version", "steps", "verdict", "out", "drop"}
        return said["verdict"], said["drop"]

    assert verdict("icmp", "192.168.200.3", "8.8.8.8") == ("send", None)
    assert verdict("icmp", "192.168.200.3", "192.168.200.2") == ("answer", None)
    assert verdict("icmp", "192.168.200.3", "114.114.114.114") == ("hold", None)
    assert verdict("icmp", "192.168.200.3", "10.0.0.1") == ("drop", "route.unreachable")
    assert verdict("--port", "tap0", "--hex", "00") == ("drop", "eth.short")
    assert verdict("--port", "vpn", "udp", "8.8.8.8:53", "192.168.192.210:9") == ("drop", "alias.no_link")


@pytest.mark.parametrize("port", ["eth0", "tap0:hk", "vpn:", "vpn:../hk"])
def test_a_packet_cannot_come_in_by_a_port_that_is_not_there(run: Run, port: str) -> None:
    run("trace", "-c", "gateway.toml", "--port", port, "icmp", "8.8.8.8", "192.168.192.210", code=2)


def test_a_packet_cannot_come_in_where_there_is_no_port_at_all(run: Run, folder: Path) -> None:
    (folder / "gateway.toml").write_text("")
    assert "no port" in run("trace", "-c", "gateway.toml", "icmp", "8.8.8.8", "192.168.192.210", code=1).stderr


def test_a_packet_comes_in_from_a_node_that_the_configuration_knows(run: Run, folder: Path) -> None:
    words = ("trace", "-j", "-c", "gateway.toml", "icmp", "9.9.9.9", "192.168.192.210", "--port")
    with (folder / "gateway.toml").open("a") as file:
        file.write('[tunnel]\n[peer.jp]\nallowed_ips = ["0.0.0.0/0"]\n')
    for node, port in (("hk", "vpn"), ("sg", "vpn:sg"), ("jp", "vpn:jp")):
        assert [out["port"] for out in document(run(*words, f"vpn:{node}"))["out"]] == [port]
    run(*words, "vpn:us", code=2)


def test_a_frame_of_a_capture_is_traced_by_its_number(run: Run, folder: Path) -> None:
    frames = [
        Ether(src="02:aa:00:00:00:03", dst="02:00:00:00:c8:02")
        / IP(src="192.168.200.3", dst=target)
        / UDP(sport=5, dport=6)
        for target in ("8.8.8.8", "9.9.9.9")
    ]
    with (folder / "lan.pcap").open("wb") as file:
        writer = pcap.PcapWriter(file, pcap.LINK_ETHERNET)
        for frame in frames:
            writer.write(1, bytes(frame))
    said = document(run("trace", "-j", "-c", "gateway.toml", "--pcap", "lan.pcap", "--frame", "2"))
    assert [out["port"] for out in said["out"]] == ["vpn:sg"]
    assert (
        run("trace", "--pcap", "lan.pcap", "--frame", "3", code=1).stderr
        == "Error: lan.pcap has 2 frames, no frame 3\n"
    )
    run("trace", "-c", "gateway.toml", "--port", "tun0", "--pcap", "lan.pcap", "--frame", "1", code=1)
    run("trace", "--pcap", "gateway.toml", "--frame", "1", code=1)
    run("trace", "--pcap", "missing.pcap", "--frame", "1", code=1)


def test_a_raw_frame_of_a_capture_goes_into_a_tap_or_the_first_raw_port(run: Run, folder: Path) -> None:
    for source, more in (("192.168.200.3", ["--port", "tap0"]), ("192.168.192.211", [])):
        with (folder / "raw.pcap").open("wb") as file:
            packet = IP(src=source, dst="8.8.8.8") / UDP(sport=5, dport=6)
            pcap.PcapWriter(file, pcap.LINK_RAW).write(1, bytes(packet))
        assert document(run("trace", "-j", "-c", "gateway.toml", "--pcap", "raw.pcap", *more))["verdict"] == "send"


# Check, replay


def test_check_prints_what_would_be_set_up(run: Run, folder: Path) -> None:
    text = (folder / "gateway.toml").read_text()
    (folder / "lan.toml").write_text(text[: text.index("[vpn]")] + text[text.index("[offload]") :])
    result = run("check", "-c", "lan.toml")
    assert result.stdout.startswith("lan.toml is valid. It would set up:\n")
    said = document(run("check", "-j", "-c", "lan.toml"))
    assert [(port["port"], port["kind"], port["mtu"]) for port in said["ports"]] == [
        ("tap0", "tap", 1500),
        ("tap1", "tap", 1500),
        ("tun0", "tun", 1500),
    ]
    assert said["ports"][1]["next_hop"] == "192.168.1.1"
    assert said["forwards"] == [{"on": "tap1", "protocol": "tcp", "outside_port": 8080, "inside": "192.168.200.3:80"}]
    assert said["socket"] == str(load(folder / "lan.toml", "replay").control.socket)


def test_replay_reports_ports_and_drops_for_people_and_lines_for_programs(run: Run, folder: Path) -> None:
    with (folder / "lan.pcap").open("wb") as file:
        pcap.PcapWriter(file, pcap.LINK_ETHERNET).write(1_500_000_000, b"short")
    words = ["replay", "-c", "gateway.toml", "--in", "tap0=lan.pcap", "--out", "deep/out", "--linger", "0.000000001"]
    assert run(*words).stdout.splitlines() == [
        "PORT    RX PACKETS  RX BYTES  TX PACKETS  TX BYTES",
        "tap0             1         5           0         0",
        "tap1             0         0           0         0",
        "tun0             0         0           0         0",
        "vpn              0         0           0         0",
        "vpn:sg           0         0           0         0",
        "",
        "PORT  DROP REASON  PACKETS",
        "tap0  eth.short          1",
        "0.000000 s of virtual time; outputs in deep/out",
    ]
    lines = run(*words, "-j").stdout.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["rx", "drop"]
    assert lines[1] == '{"t": 1.500000000, "port": "tap0", "event": "drop", "reason": "eth.short"}'


def test_replay_of_a_damaged_or_missing_capture_ends_with_1_and_says_where(run: Run, folder: Path) -> None:
    (folder / "cut.pcap").write_bytes(b"\xd4\xc3\xb2\xa1")
    words = ["replay", "-c", "gateway.toml", "--out", "out", "--in"]
    assert "cut.pcap: file header at byte 0: cut" in run(*words, "tap0=cut.pcap", code=1).stderr
    assert "missing.pcap: No such file" in run(*words, "tap0=missing.pcap", code=1).stderr
    (folder / "file").write_text("")
    run("replay", "-c", "gateway.toml", "--out", "file", code=2)
