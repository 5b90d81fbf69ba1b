"""An exit node for scenarios: no LAN, three peers, of which two may leave by its tap1."""

from __future__ import annotations

from scapy.layers.inet import IP

from tests.conformance.harness import ADDRESS_O, MAC_ISP, MAC_O, Out

EXIT = "10.8.0.1"  # tun0's address
ALICE, BOB, CAROL = "10.8.0.2", "10.8.0.3", "10.8.0.4"
BEHIND_ALICE, BEHIND_CAROL = "10.20.0.9", "10.20.7.9"
AT_ALICE, AT_BOB, AT_CAROL = "vpn:alice", "vpn:bob", "vpn:carol"
WORLD = "8.8.8.8"

CONFIGURATION = f"""
[tap1]
address = "{ADDRESS_O}/24"
mac = "{MAC_O}"
gateway = "192.168.1.1"
[tap1.arp]
"192.168.1.1" = "{MAC_ISP}"
"192.168.1.77" = "02:aa:00:00:00:77"
[tun0]
address = "{EXIT}/24"
[tunnel]
[peer.alice]
allowed_ips = ["{ALICE}/32", "10.20.0.0/16"]
[peer.bob]
allowed_ips = ["{BOB}/32"]
exit = true
[peer.carol]
allowed_ips = ["{CAROL}/32", "10.20.7.0/24"]
exit = true
[offload]
prefixes = ["offload.txt"]
"""


def ends(out: Out) -> tuple[str, str, str]:
    """The port that a packet left by, its source, its destination."""
    packet: IP = out.ip
    return out.port, packet.src, packet.dst
