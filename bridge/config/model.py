"""What the tables and keys of a configuration file are: one model a table, one attribute a key, under the file's names.

Everything here is about one value alone; what two values owe each other is in `bridge.config.checks`, what only a
running gateway needs in `bridge.config.demands`. Units: seconds and bytes as in the file. Addresses and subnets are
address objects where people see them and 32-bit integers where packets meet them (static ARP entries, forwards).
"""

from __future__ import annotations

from hashlib import blake2s
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from bridge.config.document import Document
from bridge.config.lists import PrefixFiles
from bridge.config.values import (
    LONGEST_TIMER_S,
    AbsolutePath,
    Address,
    AddressNumber,
    ArpTimeout,
    ClientId,
    InsideValue,
    InterfaceAddress,
    InterfaceName,
    Mac,
    Metrics,
    Namespace,
    NodeName,
    OffloadAddress,
    OptionalFile,
    OptionBytes,
    OptionCode,
    OptionText,
    PathAsWritten,
    PortNumber,
    PrefixValue,
    TapMtu,
    TunMtu,
)
from bridge.control.client import DEFAULT_SOCKET
from route.lists import Prefix

Purpose = Literal["run", "check", "replay"]

DEFAULT_TUN_MTU = 1500
DEFAULT_VPN_MTU = 1420  # what fits a path of 1500 bytes once it is sealed (60 bytes over IPv4, 80 over IPv6)
DEFAULT_STATE = Path("/var/lib/tapbridge/tunnel.json")


class Table(BaseModel):
    """A TOML table: unknown keys are refused, types are not bent, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# Strictness is for the items: TOML knows lists only, the models hold tuples.
_Prefixes = Annotated[tuple[PrefixValue, ...], Field(strict=False)]


def derived_mac(port: str, address: object) -> bytes:
    """A locally administered MAC address that is the same after every start: 02 and five bytes of a hash."""
    return b"\x02" + blake2s(f"{port} {address}".encode(), digest_size=5).digest()


class Tap0(Table):
    """`[tap0]`: the LAN side. The ARP table has one slot for each address of the subnet."""

    address: InterfaceAddress
    mac: Mac = Field(default_factory=lambda data: derived_mac("tap0", data.get("address")))
    mtu: TapMtu = 1500
    bridge: InterfaceName | None = None
    netns: Namespace | None = None
    interface: InterfaceName = "tap0"
    arp_timeout: ArpTimeout = 30
    arp: dict[AddressNumber, Mac] = Field(default_factory=dict)


class Dhcp(Table):
    """`[tap1.dhcp]`: how tap1's client presents itself where its address is "dhcp". Empty values are not sent.
    `hostname`, `vendor_class` and `client_id` are options 12, 60 and 61, `options` further ones by number. `state_file`
    is ours: the last lease, which a start asks for again; None is beside the control socket, "" nowhere."""

    hostname: OptionText = b""
    client_id: ClientId = b""
    vendor_class: OptionText = b""
    options: dict[OptionCode, OptionBytes] = Field(default_factory=dict)
    state_file: OptionalFile | None = None


class Tap1(Table):
    """`[tap1]`: the ISP side. `kind` "tun" is raw IP without ARP; `gateway`, `mac` and `arp` have no effect there.
    `address` is None where DHCP brings it (`is_leased`); then `gateway` wins over what the lease says."""

    kind: Literal["tap", "tun"] = "tap"
    address: OffloadAddress
    gateway: Address | None = None
    mac: Mac = Field(default_factory=lambda data: derived_mac("tap1", data.get("address")))
    mtu: TapMtu = 1500
    bridge: InterfaceName | None = None
    netns: Namespace | None = None
    interface: InterfaceName = Field(default_factory=lambda data: "tun1" if data.get("kind") == "tun" else "tap1")
    arp_timeout: ArpTimeout = 30
    arp: dict[AddressNumber, Mac] = Field(default_factory=dict)
    dhcp: Dhcp = Dhcp()

    @property
    def is_leased(self) -> bool:
        """True where the address comes by DHCP."""
        return self.address is None

    def with_mac(self, mac: bytes) -> Tap1:
        """The same table with another MAC address that nobody wrote down."""
        own = self.model_copy(update={"mac": mac})
        own.model_fields_set.discard("mac")
        return own


class Tun0(Table):
    """`[tun0]`: this host's own traffic. Its MTU is the tunnel's (`Config.tun0_mtu`)."""

    address: InterfaceAddress
    default_route: bool = False
    netns: Namespace | None = None
    interface: InterfaceName = "tun0"


class Vpn(Table):
    """`[vpn]`: the inside of the tunnel. `address` is the alias of LAN hosts; None leaves their sources as they are.

    `interface` (with `netns`) joins the default node to a plain tun device instead of a tunnel: unencrypted, for labs.
    """

    address: Address | None = None
    mtu: TunMtu = DEFAULT_VPN_MTU
    node: NodeName | None = None
    interface: InterfaceName | None = None
    netns: Namespace | None = None


class OffloadLists(Table):
    """`[offload]`: prefix files for tap1, and prefixes that never go there."""

    prefixes: Annotated[tuple[PathAsWritten, ...], Field(strict=False)] = ()
    bypass: _Prefixes = ()


class Tunnel(Table):
    """`[tunnel]`. `run` and `check` demand the key file. `state_file` is ours: what must survive a restart. `announce`
    is what lies behind us; None is the LAN, where its sources stay as they are in the tunnel (`Config.announced`)."""

    private_key_file: AbsolutePath | None = None
    listen_port: PortNumber = 51820
    name: NodeName | None = None
    relay: bool = True
    routes: PathAsWritten | None = None
    announce: _Prefixes | None = None
    state_file: AbsolutePath = DEFAULT_STATE
    threads: Annotated[int, Field(ge=1, le=64)] | None = None


class Peer(Table):
    """`[peer.NAME]`. Key and endpoint are checked for `run` and `check` only, so they are text here. `fallback` is the
    peer that takes new flows while this one is unreachable; `exit` lets this one's packets out by our tap1."""

    public_key: str | None = None
    preshared_key_file: AbsolutePath | None = None
    endpoint: str | None = None
    persistent_keepalive: Annotated[int, Field(ge=0, le=65535)] = 0
    allowed_ips: _Prefixes = ()
    accept: _Prefixes = ()
    via: NodeName | None = None
    fallback: NodeName | None = None
    exit: bool = False


class Forward(Table):
    """`[[alias.forward]]`: a static port map. `inside` is `HostPort(address, port)`."""

    on: Literal["tap1", "vpn"]
    protocol: Literal["tcp", "udp"]
    outside_port: PortNumber
    inside: InsideValue


class Alias(Table):
    """`[alias]`: the NAT. Timers are seconds; their floors are those of RFC 4787, RFC 5382 and RFC 5508. `state_file`
    is ours: where links outlive a restart; None is beside the control socket, "" nowhere."""

    filtering: Literal["endpoint-independent", "address-dependent"] = "endpoint-independent"
    udp_timeout: Annotated[int, Field(ge=120, le=LONGEST_TIMER_S)] = 300
    tcp_established_timeout: Annotated[int, Field(ge=7440, le=LONGEST_TIMER_S)] = 7440
    tcp_transitory_timeout: Annotated[int, Field(ge=240, le=LONGEST_TIMER_S)] = 240
    icmp_timeout: Annotated[int, Field(ge=60, le=LONGEST_TIMER_S)] = 60
    refresh_inbound: bool = False
    unsolicited_syn: Literal["silent", "unreachable"] = "silent"
    max_links: Annotated[int, Field(ge=1)] = 65536
    max_links_per_host: Annotated[int, Field(ge=1)] = 8192
    exempt: _Prefixes = ()
    state_file: OptionalFile | None = None
    forward: Annotated[tuple[Forward, ...], Field(strict=False)] = ()


class Icmp(Table):
    """`[icmp]`: what the gateway itself answers."""

    answer_on_tap1: bool = True
    errors_per_second: Annotated[int, Field(ge=0)] = 1000
    mute: Annotated[tuple[Literal["tap0", "tap1", "tun0", "vpn"], ...], Field(strict=False)] = ()


class Control(Table):
    """`[control]`: the socket of `bridgectl`, and where metrics are served ("" for nowhere)."""

    socket: AbsolutePath = DEFAULT_SOCKET
    group: str = ""
    metrics: Metrics = ""


class FastPath(Table):
    """`[fast_path]`: how packets of known flows are forwarded. `threads`: how many forward; one is the loop's own.
    `police`: where more comes than can be walked, the senders of it get equal shares."""

    threads: Annotated[int, Field(ge=1, le=64)] = 1
    police: bool = True


class Process(Table):
    """`[process]`: what the gateway still is and may once it stands. `user`: whom it becomes, "" for tapbridge where
    there is such a user. `confine`: Landlock and the seccomp filter."""

    user: str = ""
    confine: bool = True


class Hooks(Table):
    """`[hooks]`: programs run once all ports are up, and before they go."""

    up: AbsolutePath | None = None
    down: AbsolutePath | None = None


class Config(Table):
    """A whole configuration. Tables that change what the gateway is are None when absent, the others have defaults.

    Made by `bridge.config.load.load` only: `settle` tells it where its words stand.
    """

    tap0: Tap0 | None = None
    tap1: Tap1 | None = None
    tun0: Tun0 | None = None
    vpn: Vpn | None = None
    offload: OffloadLists = OffloadLists()
    tunnel: Tunnel | None = None
    peer: dict[NodeName, Peer] = Field(default_factory=dict)
    alias: Alias = Alias()
    icmp: Icmp = Icmp()
    control: Control = Control()
    fast_path: FastPath = FastPath()
    hooks: Hooks = Hooks()
    process: Process = Process()

    _document: Document = PrivateAttr()
    _warnings: list[str] = PrivateAttr()
    _prefix_files: PrefixFiles = PrivateAttr()

    def settle(self, document: Document, warnings: list[str], prefix_files: PrefixFiles) -> None:
        """Keep what belongs to a checked configuration beside its values."""
        self._document = document
        self._warnings = warnings
        self._prefix_files = prefix_files

    @property
    def path(self) -> Path:
        """The file that was read, as the caller spelled it."""
        return self._document.path

    @property
    def warnings(self) -> list[str]:
        """`FILE:LINE: ...` for what is allowed and has no effect, or not the expected one."""
        return self._warnings

    @property
    def prefix_files(self) -> PrefixFiles:
        """The prefix lists that the configuration names, as they were when it was read."""
        return self._prefix_files

    @property
    def has_vpn(self) -> bool:
        """True where there is an inside of the tunnel: an exit node, which has no LAN, has one without `[vpn]`."""
        return self.vpn is not None or (self.tap0 is None and (self.tunnel is not None or bool(self.peer)))

    @property
    def leases_tap1(self) -> bool:
        """True where tap1's address comes by DHCP."""
        return self.tap1 is not None and self.tap1.is_leased

    @property
    def vpn_mtu(self) -> int:
        """The MTU of the tunnel's inside in bytes."""
        return self.vpn.mtu if self.vpn else DEFAULT_VPN_MTU

    @property
    def default_node(self) -> str | None:
        """The node that takes what nothing else names."""
        return self.vpn.node if self.vpn else None

    @property
    def announced(self) -> tuple[Prefix, ...]:
        """The prefixes that we tell our peers: as written, else the LAN and this host where no alias hides them."""
        if self.tunnel is None:
            return ()
        if self.tunnel.announce is not None:
            return self.tunnel.announce
        if self.tap0 is None or self.vpn is None or self.vpn.address is not None:
            return ()
        lan = self.tap0.address.network
        host = [Prefix(int(self.tun0.address.ip), 32)] if self.tun0 else []
        return (Prefix(int(lan.network_address), lan.prefixlen), *host)

    @property
    def tun0_mtu(self) -> int:
        """The MTU of tun0 in bytes: the tunnel's, where there is one."""
        return self.vpn_mtu if self.has_vpn else DEFAULT_TUN_MTU

    def line(self, *path: str | int) -> int:
        """The line of a table, key or item, as `line("tap0", "address")`; of the table where it is not given."""
        return self._document.line(path)

    def source(self, *path: str | int) -> str:
        """The same as `FILE:LINE`."""
        return f"{self.path}:{self.line(*path)}"
