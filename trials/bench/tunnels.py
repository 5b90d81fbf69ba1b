"""The contestants of the tunnel path: both ends on this machine, joined by one cable.

LAN hosts get one address inside the tunnel. Ours does that itself; for the others the kernel forwards at both ends and
masquerades at the near one.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from lab.demo import prefix_list
from lab.namespace import Namespace
from lab.other_end import KeyFile
from lab.outside import OUTER_EXIT, OUTER_GATEWAY
from lab.process import LabProcess
from lab.second import SecondInstance
from lab.topology import TUNNELLED, Lab
from trials.bench.contestants import (
    LIMITS,
    OURS,
    PLAIN,
    PREFIXES,
    TUNNEL,
    Contestant,
    Running,
    fast,
    in_use,
    kernel_forwards,
    kernel_masquerades,
    kernel_owns,
    started,
    until,
    until_answered,
)

_NEAR, _FAR = "10.99.0.1", "10.99.0.2"
_ENDS = (("gw", "near", _NEAR, OUTER_GATEWAY), ("exit", "far", _FAR, OUTER_EXIT))


def _ours(name: str) -> Callable[[Lab, ExitStack], Running]:
    def set_up(lab: Lab, stack: ExitStack) -> Running:
        far = SecondInstance(lab)
        lab.configure(far.configuration() + LIMITS, prefix_list(PREFIXES))
        stack.callback(far.stop)
        far_process = far.start(fast(name))
        gateway = lab.start_gateway(fast(name))
        stack.callback(lab.remove_gateway)
        until_answered(lab, "lan3", TUNNELLED, gateway)
        return Running((gateway,), (far_process,), server="exit", target=TUNNELLED, says=in_use(lab))

    return set_up


def _forwarded(lab: Lab, near: LabProcess, far: LabProcess) -> Running:
    """Let the kernel do what the tunnel's devices alone do not."""
    kernel_owns(lab, uplink=False)
    kernel_forwards(lab)
    kernel_masquerades(lab, "near")
    lab.namespaces["gw"].ip(f"route add {TUNNELLED}/32 dev near")
    until_answered(lab, "lan3", TUNNELLED, near, far)
    return Running((near,), (far,), server="exit", target=TUNNELLED)


def _has_device(end: Namespace, device: str, told: str = "") -> bool:
    """Whether a device is there, and `ip addr` says a word of it."""
    return f"{device}:" in end.ip("link") and told in end.ip(f"addr show dev {device}")


def _wireguard_go(lab: Lab, stack: ExitStack) -> Running:
    lab.join_outside()
    keys = {device: KeyFile(lab.folder / f"{device}.key") for _, device, _, _ in _ENDS}
    running = []
    for (where, device, inner, _), (_, other, other_inner, other_outer) in zip(_ENDS, _ENDS[::-1], strict=True):
        end = lab.namespaces[where]
        process = end.start("wireguard-go", "-f", device, more={"LOG_LEVEL": "error"})
        stack.callback(process.stop)
        until(Path(f"/run/wireguard/{device}.sock").exists, "control socket of wireguard-go's", process)
        words = ["listen-port", "51820", "private-key", str(keys[device].path), "peer", keys[other].public]
        allowed = "0.0.0.0/0" if where == "gw" else f"{other_inner}/32"
        end.run("wg", "set", device, *words, "allowed-ips", allowed, "endpoint", f"{other_outer}:51820")
        end.ip(f"addr add {inner}/24 dev {device}")
        end.ip(f"link set {device} mtu 1420 up")
        running.append(process)
    return _forwarded(lab, *running)


def _tinc(lab: Lab, stack: ExitStack) -> Running:
    lab.join_outside()
    folders = {name: lab.folder / f"tinc-{name}" for _, name, _, _ in _ENDS}
    for _, name, inner, outer in _ENDS:
        hosts = folders[name] / "hosts"
        hosts.mkdir(parents=True)
        other = "far" if name == "near" else "near"
        (folders[name] / "tinc.conf").write_text(
            f"Name = {name}\nInterface = {name}\nAddressFamily = ipv4\n" + (f"ConnectTo = {other}\n" * (name == "near"))
        )
        subnets = "0.0.0.0/0" if name == "far" else f"{inner}/32"
        (hosts / name).write_text(f"Address = {outer}\nSubnet = {subnets}\n")
        subprocess.run(
            ["tincd", "-c", str(folders[name]), "-K2048"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=True,
        )
    for name, other in (("near", "far"), ("far", "near")):
        (folders[name] / "hosts" / other).write_bytes((folders[other] / "hosts" / other).read_bytes())
    running = []
    for where, name, inner, _ in reversed(_ENDS):
        end = lab.namespaces[where]
        words = ["-c", str(folders[name]), "-D", f"--pidfile={folders[name]}/pid", f"--logfile={folders[name]}/log"]
        process = started(lab, stack, where, "tincd", *words)
        until(partial(_has_device, end, name), "device of tinc's", process)
        end.ip(f"addr add {inner}/24 dev {name}")
        end.ip(f"link set {name} up")
        running.append(process)
    far, near = running
    return _forwarded(lab, near, far)


def _openvpn(lab: Lab, stack: ExitStack) -> Running:
    lab.join_outside()
    prints = {}
    for _, name, _, _ in _ENDS:
        paths = ["-keyout", str(lab.folder / f"{name}.pem"), "-out", str(lab.folder / f"{name}.crt")]
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        subprocess.run([*words, "-subj", f"/CN={name}", "-days", "2", *paths], capture_output=True, check=True)
        shown = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", str(lab.folder / f"{name}.crt")]
        told = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
        prints[name] = told.strip().partition("=")[2]
    running = []
    for (where, name, inner, _), (_, other, other_inner, other_outer) in zip(_ENDS, _ENDS[::-1], strict=True):
        words = ["--dev", name, "--dev-type", "tun", "--ifconfig", inner, other_inner, "--remote", other_outer]
        words += [
            "--proto",
            "udp4",
            "--lport",
            "1194",
            "--rport",
            "1194",
            "--dh",
            "none",
            "--disable-dco",
            "--verb",
            "1",
        ]
        words += ["--tls-client"] if where == "gw" else ["--tls-server"]
        words += ["--cert", str(lab.folder / f"{name}.crt"), "--key", str(lab.folder / f"{name}.pem")]
        running.append(started(lab, stack, where, "openvpn", *words, "--peer-fingerprint", prints[other]))
    near, far = running
    for where, name, _, _ in _ENDS:
        until(partial(_has_device, lab.namespaces[where], name, "inet "), "address of openvpn's", near, far)
    return _forwarded(lab, near, far)


_KERNEL_NAT = "the kernel forwards and masquerades at the near end"

TUNNELS = (
    Contestant(OURS, TUNNEL, ("ip",), "", (), "both ends compiled, NAT its own, inner MTU 1420", _ours(OURS)),
    Contestant(PLAIN, TUNNEL, ("ip",), "", (), "both ends TAPBRIDGE_FAST=0, NAT its own, inner MTU 1420", _ours(PLAIN)),
    Contestant(
        "wireguard-go",
        TUNNEL,
        ("wireguard-go", "wg", "nft"),
        "wireguard-go wireguard-tools nftables",
        ("wireguard-go", "--version"),
        f"inner MTU 1420; {_KERNEL_NAT}",
        _wireguard_go,
    ),
    Contestant(
        "tinc",
        TUNNEL,
        ("tincd", "nft"),
        "tinc nftables",
        ("tincd", "--version"),
        f"router mode, tun, its default cipher; {_KERNEL_NAT}",
        _tinc,
    ),
    Contestant(
        "openvpn",
        TUNNEL,
        ("openvpn", "openssl", "nft"),
        "openvpn openssl nftables",
        ("openvpn", "--version"),
        f"UDP, AES-256-GCM, no kernel data channel; {_KERNEL_NAT}",
        _openvpn,
    ),
)
