"""`bridgectl demo`: the whole topology in namespaces on this machine, the real daemon, real traffic, in under a minute.

Builds `lab.topology`, starts the daemon with 4,600 offload prefixes and the tunnel's other end, and drives the four
flows from real kernel stacks: UDP, ping, traceroute, a fragmented datagram, TCP both ways with SHA-256, a hairpin. Each
flow is shown hop by hop as the gateway's live capture saw it and compared with topology.md's table; an eavesdropper on
the cable between both ends of the tunnel must find nothing of it. Exit code 0 where every check held, else 1.

The other end is a second instance of ours, or wireguard-go. Where no tun device or no namespace can be had, the same
flows go through the forwarder as captures (`lab.rehearsal`).
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing

from rich.console import Console

from lab.flows import FLOWS, PacketFlow, observe
from lab.other_end import FAR_PORT, OUR_PORT
from lab.outside import DEVICE, OUTER_EXIT, OUTER_GATEWAY
from lab.peers import asked
from lab.private import Impossible
from lab.process import CommandFailed
from lab.rehearsal import rehearse
from lab.second import SecondInstance
from lab.sniffer import Sniffer, datagram_in, overheard
from lab.steps import DemoSteps
from lab.topology import HOSTS, LEASED_TAP1, OFFLOADED, ROUTER, STATIC_TAP1, TAP0, TAP1, TUNNELLED, Lab, topology
from lab.wireguard import FarEnd, demand_wireguard
from tunnel.messages import COOKIE_REPLY_HEAD, DATA_HEAD, INITIATION_HEAD, RESPONSE_HEAD
from wire import ethernet
from wire.units import address_int

PREFIXES = 4600
TRANSFER_S = 120.0
PEERS = ("ours", "wireguard-go")
MESSAGE_HEADS = frozenset({INITIATION_HEAD, RESPONSE_HEAD, COOKIE_REPLY_HEAD, DATA_HEAD})
_HAIRPIN = """
[[alias.forward]] # the hairpin: lan4 reaches lan3 by tap1's address
on = "tap1"
protocol = "tcp"
outside_port = 7777
inside = "192.168.200.3:7777"
"""


def prefix_list(length: int = PREFIXES) -> str:
    """An offload list of that many /24s, 114.114.114.0/24 among them and 8.8.8.0/24 not: the same at every run."""
    rng = random.Random(length)
    found = {"114.114.114.0/24"}
    while len(found) < length:
        found.add(f"{rng.randrange(101, 126)}.{rng.randrange(256)}.{rng.randrange(256)}.0/24")
    return "\n".join(sorted(found)) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: `bridgectl demo [--peer WHO] [--megabytes N] [--replay]`."""
    parser = argparse.ArgumentParser(prog="bridgectl demo", description="the four flows on this machine")
    parser.add_argument("--megabytes", type=int, default=100, help="of each TCP transfer, each way (default 100)")
    parser.add_argument("--peer", choices=PEERS, default=PEERS[0], help="the tunnel's other end (default ours)")
    parser.add_argument("--replay", action="store_true", help="without devices: the same flows as captures")
    options = parser.parse_args(arguments)
    console = Console(soft_wrap=True)
    steps = DemoSteps(console)
    if not options.replay:
        try:
            with topology() as lab:
                far = _other_end(lab, options.peer)
                try:
                    _run(steps, lab, far, options.megabytes * 1_000_000)
                finally:
                    far.stop()
        except Impossible as reason:
            console.print(f"No lab here: {reason}. The same flows as captures instead.", highlight=False)
            options.replay = True
        except CommandFailed as failure:
            console.print(str(failure), markup=False, highlight=False)
            return 1
    if options.replay:
        rehearse(steps, FLOWS)
    if steps.failures:
        console.print(f"\n{len(steps.failures)} checks failed", style="bold red")
        return 1
    console.print(f"\nAll checks held, {steps.elapsed_s:.0f} s. Everything is removed again.", style="bold green")
    return 0


def _other_end(lab: Lab, who: str) -> FarEnd | SecondInstance:
    if who == PEERS[0]:
        return SecondInstance(lab)
    demand_wireguard(lab, in_kernel=False)
    return FarEnd(lab, in_kernel=False)


def _run(steps: DemoSteps, lab: Lab, far: FarEnd | SecondInstance, size_bytes: int) -> None:
    lab.configure(far.configuration().replace(STATIC_TAP1, LEASED_TAP1) + _HAIRPIN, prefix_list())
    steps.console.print(f"LAN hosts {', '.join(HOSTS.values())}; gateway {TAP0}; ISP router {ROUTER} with {OFFLOADED};")
    steps.console.print(f"behind the tunnel {TUNNELLED}; its other end is {far.what} at {OUTER_EXIT}:{FAR_PORT}.")
    with ExitStack() as stack:
        outside = stack.enter_context(closing(Sniffer(lab.namespaces["exit"], DEVICE)))
        inside = stack.enter_context(closing(Sniffer(lab.namespaces["lan3"], "eth0")))
        with steps.step(f"starting the far ends, the tunnel's other end and the gateway ({PREFIXES} offload prefixes)"):
            lab.serve()
            far.start()
            lab.start_gateway()
        with steps.step("the ISP router's DHCP server begins, and tap1 leases its address"):
            server = lab.serve_leases()
            lease = lab.await_lease()
            steps.check(lease["address"] == TAP1 and lease["gateway"] == ROUTER, f"{server.line()}, {server.line()}")
        _small_talk(steps, lab, far.hops)
        with steps.step("what passed the cable between both ends of the tunnel so far"):
            _cable(steps, outside, inside)
    with steps.step(f"TCP, {size_bytes // 1_000_000} MB each way, SHA-256 compared"):
        for flow in FLOWS:
            _transfer(steps, lab, flow.name, flow.client, flow.remote, flow.seen_as, size_bytes)
    with steps.step("hairpin: lan4 reaches lan3 by the address of tap1 and a static forward"):
        _transfer(steps, lab, "lan4 -> lan3", "lan4", TAP1, TAP1, size_bytes // 10)
    for words in (["dhcp"], ["peers"], ["arp"], ["alias"], ["stats"]):
        steps.console.print(f"\n$ bridgectl {' '.join(words)}", style="bold", highlight=False)
        lab_command = [sys.executable, "-m", "bridgectl", "--socket", str(lab.socket_path), *words]
        print(lab.namespaces["gw"].run(*lab_command).rstrip())
    with steps.step("stopping the gateway and the tunnel's other end"):
        steps.check(lab.stop_gateway() == 0, "exit code 0")
        left = lab.namespaces["gw"].ip("-br link")
        steps.check(not any(name in left for name in ("tap0", "tap1", "tun0")), "its devices are gone with it")
        far.stop()
        steps.check(far.device not in lab.namespaces["exit"].ip("-br link"), "and so is that of the other end")


def _small_talk(steps: DemoSteps, lab: Lab, hops: tuple[str, ...]) -> None:
    with steps.step("UDP request and reply, each hop as the gateway saw it"):
        _show_hops(steps, lab)
    with steps.step("ping"):
        for flow in FLOWS:
            _ping(steps, lab, flow)
    with steps.step("traceroute"):
        for flow in FLOWS:
            _traceroute(steps, lab, flow, (TAP0, *(hops if flow.beyond == "vpn" else ()), flow.remote))
    with steps.step("a datagram of 4,000 bytes, fragmented by the sender's kernel"):
        for flow in FLOWS:
            told = lab.client(flow.client, "ask", flow.remote, "4000")
            steps.check(bool(told["ok"]), f"{flow.name}: answered, seen as {told['seen_as']}")


def _cable(steps: DemoSteps, outside: Sniffer, inside: Sniffer) -> None:
    """Only the tunnel's messages may be there, and in them neither an inner header nor anything of what was said."""
    frames = outside.frames()
    ends = {f"{OUTER_GATEWAY}:{OUR_PORT}", f"{OUTER_EXIT}:{FAR_PORT}"}
    packets = [frame for frame in frames if frame[12:14] != ethernet.ARP_TYPE]
    sealed = 0
    for seen in map(datagram_in, packets):
        sealed += seen is not None and {seen.source, seen.destination} == ends and seen.payload[:4] in MESSAGE_HEADS
    steps.check(0 < sealed == len(packets), f"{sealed} UDP packets of the tunnel, {len(packets) - sealed} others")
    said = [said[at : at + 16] for said in (asked(0, 64), asked(0, 4000)) for at in range(0, len(said), 16)]
    heads = [
        (address_int(one) << 32 | address_int(other)).to_bytes(8, "big")
        for flow in FLOWS
        if flow.beyond == "vpn"
        for address in (flow.address, flow.seen_as)
        for one, other in ((address, flow.remote), (flow.remote, address))
    ]
    steps.check(overheard(frames, heads) == 0, "no inner header with the addresses of a flow lies open in them")
    steps.check(overheard(frames, said) == 0, f"none of {len(said)} pieces of what was said lies open in them")
    control = inside.frames()
    steps.check(min(overheard(control, heads), overheard(control, said)) > 0, "on the LAN the same search finds both")


def _show_hops(steps: DemoSteps, lab: Lab) -> None:
    for flow in FLOWS:
        answer, hops = observe(lab, flow)
        steps.show_hops(flow, hops)
        steps.check(bool(answer["ok"]) and hops == flow.hops, f"{flow.name}: as topology.md says")


def _ping(steps: DemoSteps, lab: Lab, flow: PacketFlow) -> None:
    if shutil.which("ping") is None:
        told = lab.client(flow.client, "ping", flow.remote)
        steps.check(bool(told["ok"]), f"{flow.name}: {told['ms']} ms")
        return
    printed = lab.namespaces[flow.client].run("ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", flow.remote, check=False)
    last = printed.strip().splitlines()[-1]
    steps.check("3 received" in printed, f"{flow.name}: 3 packets, {last}")


def _traceroute(steps: DemoSteps, lab: Lab, flow: PacketFlow, wanted: tuple[str, ...]) -> None:
    """The first hop is the gateway (into tun0 its errors carry tap0's address), the last one the remote."""
    if shutil.which("traceroute") is not None:
        words = ("traceroute", "-n", "-q", "1", "-w", "2", "-m", "5", flow.remote)
        printed = lab.namespaces[flow.client].run(*words, check=False)
        hops = [line.split()[1] for line in printed.splitlines()[1:] if len(line.split()) > 1]
    else:
        ttls = range(1, len(wanted) + 1)
        hops = [str(lab.client(flow.client, "ping", flow.remote, str(ttl))["from"]) for ttl in ttls]
    steps.check(hops == list(wanted), f"{flow.name}: {' -> '.join(hops)}")


def _transfer(steps: DemoSteps, lab: Lab, name: str, client: str, remote: str, seen_as: str, size_bytes: int) -> None:
    told = lab.client(client, "transfer", remote, str(size_bytes), str(size_bytes), timeout_s=TRANSFER_S)
    rates = [size_bytes * 8 / 1e9 / max(told[key], 1e-3) for key in ("up_s", "down_s")]
    held = bool(told["ok"]) and str(told["seen_as"]).rpartition(":")[0] == seen_as
    steps.check(held, f"{name}: up {rates[0]:.1f}, down {rates[1]:.1f} Gbit/s, seen as {told['seen_as']}")


if __name__ == "__main__":
    sys.exit(main())
