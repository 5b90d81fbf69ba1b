"""A gateway whose LAN keeps its addresses in the tunnel, and an exit that is told of them: one NAT, at the exit.

lan3 192.168.200.3 == tap0 gateway tun0 192.168.192.211
                           vpn, nothing aliased
                           vpn exit tun0 192.168.192.1, the exit's machine
                               exit tap1 192.0.2.2 == world == 192.0.2.1, 8.8.8.8
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import pytest

from bridge.control.client import ControlError, request
from lab.daemon import watch
from lab.flows import LAN_TO_VPN, PacketFlow, datagrams, observe
from lab.second import ADDRESS, SecondInstance
from lab.topology import HOSTS, TUN0, TUNNELLED, VPN_ALIAS, Lab
from tests.lab.far_end import peer, run, until

pytestmark = pytest.mark.lab

LAN, HOST = "192.168.200.0/24", f"{TUN0}/32"
LAN3 = HOSTS["lan3"]
EXIT_ALIAS = "192.0.2.2"
UNALIASED = PacketFlow("LAN -> exit", "lan3", LAN3, TUNNELLED, "tap0", "vpn", LAN3)


class Exit(SecondInstance):
    """An exit that sends what comes from the gateway out by its own tap1, and gives it what it announces."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.accept = f'["{LAN}", "{HOST}"]'

    def own_configuration(self) -> str:
        text = re.sub(r"allowed_ips = .*", f"accept = {self.accept}\nexit = true", super().own_configuration())
        return f'{text}[tap1]\naddress = "{EXIT_ALIAS}/24"\ngateway = "192.0.2.1"\nbridge = "world"\n'

    def reload(self) -> None:
        self.config_path.write_text(self.own_configuration())
        self.ask("reload")

    def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        return request(self.socket_path, command, arguments)

    def watch(self, port: str) -> Generator[dict[str, Any], None, None]:
        return watch(self.socket_path, port)

    def home(self) -> dict[str, Any]:
        """Its account of the gateway."""
        found: dict[str, Any] = self.ask("peers")["peers"][0]
        return found

    def drops(self, reason: str) -> int:
        number: int = self.ask("stats")["drops"][reason]
        return number


@pytest.fixture(scope="module")
def joined(bare_lab: Lab) -> Lab:
    bare_lab.serve()
    exit_ = bare_lab.namespaces["exit"]
    exit_.ip("link add world type bridge")
    exit_.ip("addr add 192.0.2.1/24 dev world")
    exit_.ip("link set world up")
    return bare_lab


@pytest.fixture
def exit_(joined: Lab) -> Iterator[Exit]:
    end = Exit(joined)
    yield end
    end.stop()
    joined.remove_gateway()
    for folder in (joined.folder, joined.folder / "exit"):
        (folder / "tunnel.json").unlink(missing_ok=True)


def gateway(exit_: Exit, announce: str = "") -> str:
    """The gateway's configuration: no address in `[vpn]`, and what it announces where that is not the default."""
    text = exit_.configuration(keepalive=1).replace(f'address = "{VPN_ALIAS}"\n', "")
    return text.replace("[tunnel]\n", f"[tunnel]\n{announce}\n")


def start(lab: Lab, exit_: Exit) -> None:
    exit_.start()
    lab.namespaces["exit"].ip(f"route replace {LAN} dev tun0")
    run(lab, gateway(exit_))
    until(lambda: peer(lab)["told"][0]["answer"], "the exit has answered to what the gateway announces")


def test_the_lan_keeps_its_addresses_up_to_the_one_nat_of_the_exit(joined: Lab, exit_: Exit) -> None:
    start(joined, exit_)
    with closing(exit_.watch("vpn:home")) as inside, closing(exit_.watch("tap1")) as outside:
        answer, hops = observe(joined, UNALIASED)
        beyond = [
            hop
            for watched, port in ((inside, "vpn"), (outside, "tap1"))
            for hop in islice(datagrams(watched, port, TUNNELLED), 2)
        ]
    assert answer["ok"]
    assert answer["seen_as"].partition(":")[0] == EXIT_ALIAS
    assert hops == UNALIASED.hops
    assert beyond == [
        ("vpn", f"{LAN3} -> {TUNNELLED}"),
        ("vpn", f"{TUNNELLED} -> {LAN3}"),
        ("tap1", f"{EXIT_ALIAS} -> {TUNNELLED}"),
        ("tap1", f"{TUNNELLED} -> {EXIT_ALIAS}"),
    ]
    assert joined.ask("alias.show")["links"] == []
    assert joined.client("lan3", "ping", TUNNELLED)["ok"]
    for client in ("lan3", "lan4", "gw"):
        for size in ("1", "1400", "4000"):
            asked = joined.client(client, "ask", TUNNELLED, size, "3")
            assert asked["ok"], (client, asked)
            assert asked["seen_as"].partition(":")[0] == EXIT_ALIAS
    moved = joined.client("lan3", "transfer", TUNNELLED, "5000000", "5000000")
    assert moved["ok"]
    assert moved["seen_as"].partition(":")[0] == EXIT_ALIAS
    assert exit_.home()["announced"] == [LAN, HOST]
    assert peer(joined)["told"] == [{"prefix": prefix, "answer": "accepted"} for prefix in (LAN, HOST)]
    found = exit_.ask("route.get", ip=LAN3)
    assert (found["prefix"], found["target"], found["source"]) == (LAN, "vpn:home", "announced by home")
    words = ("-m", "bridgectl", "peers", "--socket")
    assert "accepted" in joined.namespaces["gw"].python(*words, str(joined.socket_path))
    assert LAN in joined.namespaces["exit"].python(*words, str(exit_.socket_path))


def test_the_exit_s_machine_reaches_lan_hosts_without_any_nat(joined: Lab, exit_: Exit) -> None:
    start(joined, exit_)
    flow = PacketFlow("exit -> LAN", "exit", ADDRESS, LAN3, "vpn", "tap0", ADDRESS)
    answer, hops = observe(joined, flow)
    assert answer["ok"]
    assert answer["seen_as"].partition(":")[0] == ADDRESS
    assert hops == flow.hops
    assert joined.client("exit", "ping", LAN3)["ok"]
    moved = joined.client("exit", "transfer", LAN3, "2000000", "2000000")
    assert moved["ok"]
    assert moved["seen_as"].partition(":")[0] == ADDRESS
    assert joined.client("exit", "knock", LAN3, "9")["ok"]
    assert joined.client("lan3", "ping", ADDRESS)["ok"]


def test_either_side_may_start_anew(joined: Lab, exit_: Exit) -> None:
    start(joined, exit_)
    assert joined.client("lan3", "ping", TUNNELLED)["ok"]
    assert joined.stop_gateway() == 0
    assert exit_.home()["announced"] == [LAN, HOST]
    joined.start_gateway()
    assert joined.client("lan3", "ping", TUNNELLED)["ok"]
    assert joined.client("exit", "ping", LAN3)["ok"]
    exit_.stop()
    exit_.start()
    joined.namespaces["exit"].ip(f"route replace {LAN} dev tun0")
    until(lambda: joined.client("lan3", "ping", TUNNELLED)["ok"], "a new session, and the announcement in it")
    assert joined.client("exit", "ping", LAN3)["ok"]


def test_a_reload_withdraws_and_brings_back_under_traffic(joined: Lab, exit_: Exit) -> None:
    start(joined, exit_)
    assert joined.client("lan3", "ping", TUNNELLED)["ok"]
    joined.configure(gateway(exit_, f'announce = ["{HOST}"]'))
    joined.ask("reload")
    until(lambda: exit_.home()["announced"] == [HOST], "the exit has heard")
    refused = exit_.drops("tunnel.inner_source")
    assert joined.client("lan3", "ping", TUNNELLED)["ok"] is False
    assert exit_.drops("tunnel.inner_source") == refused + 1
    back = joined.client("exit", "ping", LAN3)
    assert (back["type"], back["code"]) == (3, 0)
    assert exit_.ask("route.get", ip=LAN3)["source"] == "built-in"
    joined.configure(gateway(exit_))
    joined.ask("reload")
    until(lambda: exit_.home()["announced"] == [LAN, HOST], "the exit has heard")
    assert joined.client("lan3", "ping", TUNNELLED)["ok"]
    assert joined.client("exit", "ping", LAN3)["ok"]


def test_what_the_exit_does_not_accept_leads_nowhere_and_both_sides_say_so(joined: Lab, exit_: Exit) -> None:
    exit_.accept = f'["192.168.0.0/24", "{HOST}"]'
    start(joined, exit_)
    assert peer(joined)["told"] == [
        {"prefix": LAN, "answer": "not in accept"},
        {"prefix": HOST, "answer": "accepted"},
    ]
    assert exit_.home()["refused"] == [{"prefix": LAN, "reason": "not in accept"}]
    assert exit_.drops("tunnel.announce_refused") == 1
    assert joined.client("lan3", "ping", TUNNELLED)["ok"] is False
    assert exit_.drops("tunnel.inner_source") == 1
    assert joined.client("exit", "ping", LAN3)["code"] == 0
    assert joined.client("gw", "ping", TUNNELLED)["ok"]
    exit_.accept = f'["{LAN}", "{HOST}"]'
    exit_.config_path.write_text(exit_.own_configuration())
    moves = exit_.ask("reload", dry_run=True)["moves"]
    assert [(move["prefix"], move["to"]) for move in moves] == [(LAN, "vpn:home")]
    exit_.reload()
    until(lambda: peer(joined)["told"][0]["answer"] == "accepted", "the exit tells that it accepts it now")
    assert joined.client("lan3", "ping", TUNNELLED)["ok"]


def test_an_alias_in_the_tunnel_announces_nothing(joined: Lab, exit_: Exit) -> None:
    exit_.start()
    run(joined, exit_.configuration(keepalive=1))
    until(lambda: exit_.home()["state"] == "up", "there is a session")
    assert (exit_.home()["announced"], peer(joined)["told"]) == ([], [])
    assert LAN_TO_VPN.seen_as == VPN_ALIAS


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_peer_with_our_own_key_is_the_operator_s_mistake_also_where_nothing_is_to_change(
    exit_: Exit, dry_run: bool
) -> None:
    exit_.start()
    exit_.config_path.write_text(exit_.own_configuration().replace(exit_.ours.public, exit_.far.public))
    with pytest.raises(ControlError, match="our own public key") as refusal:
        exit_.ask("reload", dry_run=dry_run)
    assert refusal.value.code == 4
