"""The tables and keys of a configuration file: one model a table, one attribute a key, under the names of the file.

Each attribute checks its value alone. `bridge.config.checks` compares values with each other, `bridge.config.demands`
checks what only a running gateway needs. Beside its type a key says words (`bridge.config.words`): whether a reload
takes it over, whose file it names. Units are those of the file: seconds and bytes. Addresses are address objects where
people see them, and 32-bit integers where packets meet them (static ARP entries, forwards).
"""

from __future__ import annotations

from hashlib import blake2s
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from bridge.config.defaults import DEFAULT_SOCKET, DEFAULT_STATE
from bridge.config.lists import PrefixFiles
from bridge.config.toml_file import TomlFile
from bridge.config.values import (
    LONGEST_TIMER_S,
    AbsolutePath,
    Address,
    AddressNumber,
    ArpTimeout,
    ClientId,
    InsideEndpoint,
    InterfaceAddress,
    InterfaceName,
    Mac,
    MetricsAddress,
    NamespaceName,
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
    Threads,
    TunMtu,
)
from bridge.config.words import (
    Example,
    InWgQuick,
    NamesAFile,
    NamesAFolder,
    NotInATunnel,
    OpensAtStart,
    Reloads,
    Restart,
    WritesAFile,
)
from route.lists import Prefix

Purpose = Literal["run", "check", "replay"]
"""The use of a configuration: `run` and `check` demand keys, endpoints and programs, `replay` does without them."""

DEFAULT_TAP_MTU = 1500
DEFAULT_TUN_MTU = 1500
DEFAULT_VPN_MTU = 1420  # a path of 1500 bytes carries it once it is sealed: 60 bytes over IPv4, 80 over IPv6


class TomlTable(BaseModel):
    """A TOML table: unknown keys are refused, types are not converted, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_Table = TypeVar("_Table", bound=TomlTable)


def unwritten(table: _Table, key: str, value: object) -> _Table:
    """The same table with another value of a key that nobody wrote down."""
    own = table.model_copy(update={key: value})
    own.model_fields_set.discard(key)
    return own


# Strictness is for the items: TOML has lists only, the models hold tuples.
_Prefixes = Annotated[tuple[PrefixValue, ...], Field(strict=False)]


def derived_mac(port: str, address: object) -> bytes:
    """A locally administered MAC address that is the same after every start: 02 and five bytes of a hash."""
    return b"\x02" + blake2s(f"{port} {address}".encode(), digest_size=5).digest()


class Tap0Table(TomlTable):
    """`[tap0]`: the LAN side."""

    address: Annotated[InterfaceAddress, Restart(), Example('"192.168.200.2/24"')]
    """The gateway's own address with its prefix length, /8 to /30. The ARP table has one slot for each address."""
    mac: Annotated[Mac, Restart(if_written=True)] = Field(
        default_factory=lambda data: derived_mac("tap0", data.get("address"))
    )
    """Six bytes. The default is made from `address`, so that it is the same after every start."""
    mtu: Annotated[TapMtu, Restart(if_written=True)] = DEFAULT_TAP_MTU
    """Bytes of an IP packet, 68 to 65521. The default is the bridge's MTU, and 1500 without a bridge."""
    bridge: Annotated[InterfaceName | None, Restart()] = None
    """The Linux bridge that the tap joins; None: none."""
    netns: Annotated[NamespaceName | None, Restart()] = None
    """The network namespace that the device is put into; None: the present one."""
    interface: Annotated[InterfaceName, Restart()] = "tap0"
    """The device's name in the kernel, 1 to 15 bytes."""
    arp_timeout: Annotated[ArpTimeout, Restart()] = 30
    """Seconds for which a neighbour's answer is believed, 1 to 86400. 30 is Linux's base value."""
    arp: Annotated[dict[AddressNumber, Mac], Reloads()] = Field(default_factory=dict)
    """Static ARP entries: MAC address by IPv4 address (32-bit integer)."""


class DhcpTable(TomlTable):
    """`[tap1.dhcp]`: how tap1's client presents itself where its address is "dhcp". Empty values are not sent."""

    hostname: Annotated[OptionText, Reloads()] = b""
    """Option 12, printable ASCII without blanks, at most 255 bytes."""
    client_id: Annotated[ClientId, Reloads()] = b""
    """Option 61, 2 to 255 bytes. It is not sent by default, because some ISPs refuse a client that sends one."""
    vendor_class: Annotated[OptionText, Reloads()] = b""
    """Option 60, printable ASCII without blanks, at most 255 bytes."""
    options: Annotated[dict[OptionCode, OptionBytes], Reloads()] = Field(default_factory=dict)
    """Further options by number, at most 255 bytes each, sent as they are."""
    state_file: Annotated[OptionalFile | None, Restart(), OpensAtStart()] = None
    """The last lease, which a start asks for again. None: beside the control socket; "": it is not kept."""


def _is_leased(address: object) -> bool:
    return address is None


class Tap1Table(TomlTable):
    """`[tap1]`: the ISP side."""

    kind: Annotated[Literal["tap", "tun"], Restart()] = "tap"
    """"tun" is raw IP without ARP: `gateway`, `mac`, `bridge` and `arp` have no effect then."""
    address: Annotated[OffloadAddress, Restart(part=_is_leased), Example('"192.168.200.2/24"')]
    """The address of offloaded packets with its prefix length; None: DHCP brings it (`is_leased`)."""
    gateway: Annotated[Address | None, Reloads()] = None
    """The ISP router. A tap with a static address needs it; with a leased one it wins over the lease's. It lies
    outside the subnet only where that is a /32: then the router is the only neighbour."""
    networks: Annotated[_Prefixes, Reloads()] = ()
    """Ranges, private ones too, that lie behind the ISP router: by tap1, aliased, never in the tunnel."""
    mac: Annotated[Mac, Restart(if_written=True)] = Field(
        default_factory=lambda data: derived_mac("tap1", data.get("address"))
    )
    """Six bytes. The default is made from `address`; with a leased one from the machine's identity."""
    mtu: Annotated[TapMtu, Restart(if_written=True)] = DEFAULT_TAP_MTU
    """Bytes of an IP packet, 68 to 65521. The default is the bridge's MTU, and 1500 without a bridge."""
    bridge: Annotated[InterfaceName | None, Restart()] = None
    """The Linux bridge that the tap joins; None: none."""
    netns: Annotated[NamespaceName | None, Restart()] = None
    """The network namespace that the device is put into; None: the present one."""
    interface: Annotated[InterfaceName, Restart()] = Field(
        default_factory=lambda data: "tun1" if data.get("kind") == "tun" else "tap1"
    )
    """The device's name in the kernel, 1 to 15 bytes. The default is "tun1" for a `kind` of "tun", else "tap1"."""
    arp_timeout: Annotated[ArpTimeout, Restart()] = 30
    """Seconds for which a neighbour's answer is believed, 1 to 86400. 30 is Linux's base value."""
    arp: Annotated[dict[AddressNumber, Mac], Reloads()] = Field(default_factory=dict)
    """Static ARP entries: MAC address by IPv4 address (32-bit integer)."""
    dhcp: DhcpTable = DhcpTable()
    """The DHCP client's own table; it has no effect on a static address."""

    @property
    def is_leased(self) -> bool:
        """True where the address comes by DHCP."""
        return _is_leased(self.address)

    def with_mac(self, mac: bytes) -> Tap1Table:
        """The same table with another MAC address that nobody wrote down."""
        return unwritten(self, "mac", mac)

    @property
    def neighbours(self) -> IPv4Network | None:
        """The subnet whose hosts are asked by ARP: the address' own, the ISP router alone where that is a /32; None
        without an address."""
        if self.address is None:
            return None
        is_point_to_point = self.kind == "tap" and self.address.network.prefixlen == 32
        return IPv4Network(self.gateway) if is_point_to_point and self.gateway else self.address.network


class Tun0Table(TomlTable):
    """`[tun0]`: this host's own traffic. Its MTU is the tunnel's (`Config.tun0_mtu`)."""

    address: Annotated[InterfaceAddress, Restart(), Example('"192.168.200.2/24"'), InWgQuick()]
    """The address that the kernel owns, with its prefix length, /8 to /32."""
    default_route: Annotated[bool, Restart(), InWgQuick()] = False
    """True: the kernel gets 0.0.0.0/1 and 128.0.0.0/1 by tun0; they are gone with the device."""
    netns: Annotated[NamespaceName | None, Restart()] = None
    """The network namespace that the device is put into; None: the present one."""
    interface: Annotated[InterfaceName, Restart()] = "tun0"
    """The device's name in the kernel, 1 to 15 bytes."""


class VpnTable(TomlTable):
    """`[vpn]`: the inside of the tunnel."""

    address: Annotated[Address | None, Restart(), InWgQuick()] = None
    """The alias that LAN hosts get in the tunnel; None: their sources stay as they are."""
    mtu: Annotated[TunMtu, Restart(), InWgQuick()] = DEFAULT_VPN_MTU
    """Bytes of an inner packet at most, 68 to 65535. The default fits a path of 1500 bytes once it is sealed."""
    node: Annotated[NodeName | None, Reloads(), InWgQuick()] = None
    """The default node, for every destination without another route. None: such packets are unreachable."""
    interface: Annotated[InterfaceName | None, Restart()] = None
    """A plain tun device that takes the tunnel's place, UNENCRYPTED, for labs; None: the tunnel."""
    netns: Annotated[NamespaceName | None, Restart()] = None
    """The network namespace that this device is put into; None: the present one."""


class OffloadTable(TomlTable):
    """`[offload]`: the prefixes that go to tap1."""

    prefixes: Annotated[tuple[PathAsWritten, ...], Field(strict=False), Reloads(), NamesAFile()] = ()
    """Prefix lists, in order: of equal prefixes the first one stands."""
    bypass: Annotated[_Prefixes, Reloads()] = ()
    """Prefixes for the default node. A longer prefix of a list still wins."""


class TunnelTable(TomlTable):
    """`[tunnel]`: this node of the tunnel."""

    private_key_file: Annotated[AbsolutePath | None, Restart(), NamesAFile(), InWgQuick()] = None
    """32 bytes in base64, mode 0600. `run` and `check` demand it, a replay does without."""
    listen_port: Annotated[PortNumber, Restart(), InWgQuick()] = 51820
    """The UDP port of sealed packets, 1 to 65535. 51820 is WireGuard's."""
    name: Annotated[NodeName | None, Reloads()] = None
    """This node's name, by which others relay to it. A peer with `via` demands it."""
    relay: Annotated[bool, Reloads()] = True
    """False: wrapped packets are not passed on between our peers."""
    routes: Annotated[PathAsWritten | None, Reloads(), NamesAFolder()] = None
    """The folder with one prefix list a node; None: `route` beside the configuration."""
    announce: Annotated[_Prefixes | None, Reloads()] = None
    """The prefixes behind us that peers are told, /8 and longer, at most 200; None: see `Config.announced`."""
    state_file: Annotated[AbsolutePath, Restart(), WritesAFile(), InWgQuick()] = DEFAULT_STATE
    """Time stamps of handshakes, so that a recorded handshake is refused after a restart. No secret."""
    threads: Annotated[Threads | None, Restart()] = None
    """Threads that seal and open, 1 to 64; None: one for each core."""
    segmentation: Annotated[Literal["auto", "off"], Restart()] = "auto"
    """"auto": runs of sealed packets pass the kernel in one piece where it proves at the start that it damages none.
    "off": each passes alone."""


class PeerTable(TomlTable):
    """`[peer.NAME]`: one peer of the tunnel. A replay needs neither keys nor endpoints, so both are text here and
    checked by `bridge.config.demands`."""

    public_key: Annotated[str | None, Reloads(), InWgQuick()] = None
    """The peer's public key, 32 bytes in base64. `run` and `check` demand it."""
    preshared_key_file: Annotated[AbsolutePath | None, Reloads(), NamesAFile(), InWgQuick()] = None
    """A pre-shared key, 32 bytes in base64, mode 0600; None: there is none."""
    endpoint: Annotated[str | None, Reloads(), InWgQuick()] = None
    """`HOST:PORT` of the peer's outside; None: it is learned when the peer calls."""
    persistent_keepalive: Annotated[int, Field(ge=0, le=65535), Reloads(), InWgQuick()] = 0
    """Seconds between two packets that keep a NAT on the way open, up to 65535; 0: none are sent."""
    allowed_ips: Annotated[_Prefixes, Reloads(), InWgQuick()] = ()
    """Inner sources that are accepted from the peer. All but 0.0.0.0/0 are routed to it, too."""
    accept: Annotated[_Prefixes, Reloads()] = ()
    """Ranges in which the peer may announce prefixes."""
    via: Annotated[NodeName | None, Reloads()] = None
    """The peer through which this one is reached, sealed end to end; None: it is reached directly."""
    fallback: Annotated[NodeName | None, Reloads()] = None
    """The peer that takes new flows while this one is unreachable; None: they are unreachable."""
    exit: Annotated[bool, Reloads()] = False
    """True: the peer's packets may leave by our tap1, aliased."""


class ForwardTable(TomlTable):
    """`[[alias.forward]]`: a static port map."""

    on: Annotated[Literal["tap1", "vpn"], Reloads(), Example('"tap1"')]
    """The egress whose address is forwarded."""
    protocol: Annotated[Literal["tcp", "udp"], Reloads(), Example('"tcp"')]
    """The protocol of the port."""
    outside_port: Annotated[PortNumber, Reloads(), Example("8080")]
    """The port that visitors use, 1 to 65535."""
    inside: Annotated[InsideEndpoint, Reloads(), Example('"192.168.200.3:80"')]
    """The address and port that visitors get to."""


class AliasTable(TomlTable):
    """`[alias]`: the NAT. The floors of its timers are those of the RFCs."""

    filtering: Annotated[Literal["endpoint-independent", "address-dependent"], Reloads()] = "endpoint-independent"
    """Remotes that may answer a link: all of them, or only addresses that the inside has sent to (RFC 4787 5)."""
    udp_timeout: Annotated[int, Field(ge=120, le=LONGEST_TIMER_S), Reloads()] = 300
    """Seconds that a UDP link may be idle, at least 120. RFC 4787 4.3 recommends 300 (REQ-5)."""
    tcp_established_timeout: Annotated[int, Field(ge=7440, le=LONGEST_TIMER_S), Reloads()] = 7440
    """Seconds that an established TCP link may be idle, at least 7440: 2 h 4 min (RFC 5382 5, REQ-5)."""
    tcp_transitory_timeout: Annotated[int, Field(ge=240, le=LONGEST_TIMER_S), Reloads()] = 240
    """Seconds that a TCP link may be idle while it opens or closes, at least 240 (RFC 5382 5, REQ-5)."""
    icmp_timeout: Annotated[int, Field(ge=60, le=LONGEST_TIMER_S), Reloads()] = 60
    """Seconds that the link of an ICMP query may be idle, at least 60 (RFC 5508 3.2, REQ-2)."""
    refresh_inbound: Annotated[bool, Reloads()] = False
    """True: packets from outside keep a UDP link alive, too. False keeps strangers from doing so (RFC 4787 4.3)."""
    unsolicited_syn: Annotated[Literal["silent", "unreachable"], Reloads()] = "silent"
    """The answer to a SYN that no link knows: none, or ICMP 3/3 after six seconds (RFC 5382 4.3)."""
    max_links: Annotated[int, Field(ge=1), Reloads()] = 65536
    """Links of all hosts together, at least 1. The last quarter is kept for hosts with few."""
    max_links_per_host: Annotated[int, Field(ge=1), Reloads()] = 8192
    """Links of one inside host, of all protocols together, at least 1."""
    exempt: Annotated[_Prefixes, Reloads()] = ()
    """Destinations for which sources stay as they are."""
    state_file: Annotated[OptionalFile | None, Restart(), OpensAtStart()] = None
    """The link file, by which links outlive a restart. None: beside the control socket; "": links are not kept."""
    forward: Annotated[tuple[ForwardTable, ...], Field(strict=False), Reloads()] = ()
    """The static port maps."""


class IcmpTable(TomlTable):
    """`[icmp]`: the gateway's own ICMP messages."""

    answer_on_tap1: Annotated[bool, Reloads()] = True
    """True: echo requests to tap1's address are answered."""
    errors_per_second: Annotated[int, Field(ge=0), Reloads()] = 1000
    """ICMP errors in any second; at most 10 of them go to one address (RFC 1812 4.3.2.8). 0: none are sent."""
    mute: Annotated[tuple[Literal["tap0", "tap1", "tun0", "vpn"], ...], Field(strict=False), Reloads()] = ()
    """Ports on which no ICMP error is sent."""


class ControlTable(TomlTable):
    """`[control]`: the socket of `bridgectl`, and metrics."""

    socket: Annotated[AbsolutePath, Restart(), OpensAtStart()] = DEFAULT_SOCKET
    """The control socket, made with mode 0660; its path has at most 107 bytes."""
    group: Annotated[str, Restart()] = ""
    """The group that may use the socket; "": the daemon's own."""
    metrics: Annotated[MetricsAddress, Restart()] = ""
    """`HOST:PORT` that serves OpenMetrics at /metrics; "": nowhere."""


class FastPathTable(TomlTable):
    """`[fast_path]`: the forwarding of packets of known flows."""

    threads: Annotated[Threads, Restart()] = 1
    """Threads that forward, 1 to 64; the first one is the loop's own. More than there are ports serve nothing."""
    police: Annotated[bool, Restart()] = True
    """True: where more new flows come than the walk can decide, every sender gets an equal share."""


class ProcessTable(TomlTable):
    """`[process]`: the rights of a gateway that has started."""

    user: Annotated[str, Restart()] = ""
    """The user that a gateway started by root becomes; "": `tapbridge` where there is such a user."""
    confine: Annotated[bool, Restart()] = True
    """True: Landlock and a seccomp filter confine the process once it has started."""


class HooksTable(TomlTable):
    """`[hooks]`: programs, ended after 30 seconds."""

    up: Annotated[AbsolutePath | None, Restart(), NamesAFile()] = None
    """Run once all ports are up; None: no program."""
    down: Annotated[AbsolutePath | None, Restart(), NamesAFile()] = None
    """Run before the ports go, with the rights that `up` had; None: no program."""
    lease: Annotated[AbsolutePath | None, Restart(), NamesAFile()] = None
    """Run at every change of tap1's lease, with the rights that `up` had; None: no program."""


class Config(TomlTable):
    """A whole configuration. Tables that decide what the gateway is are None when absent, the others have defaults.

    Only `bridge.config.load.load` makes one: `attach` gives it the file that it was read from.
    """

    tap0: Annotated[Tap0Table | None, Restart()] = None
    """None: there is no LAN, this is an exit node."""
    tap1: Annotated[Tap1Table | None, Restart()] = None
    """None: nothing is offloaded."""
    tun0: Annotated[Tun0Table | None, Restart(), InWgQuick()] = None
    """None: this host's own traffic is not carried."""
    vpn: Annotated[VpnTable | None, Restart(), InWgQuick()] = None
    """None: there is no default node."""
    offload: OffloadTable = OffloadTable()
    """The prefixes that go to tap1."""
    tunnel: Annotated[TunnelTable | None, Restart(), InWgQuick()] = None
    """None: there is no tunnel."""
    peer: Annotated[dict[NodeName, PeerTable], Reloads(), InWgQuick()] = Field(default_factory=dict)
    """The peers of the tunnel by name."""
    alias: AliasTable = AliasTable()
    """The NAT."""
    icmp: Annotated[IcmpTable, NotInATunnel()] = IcmpTable()
    """The gateway's own ICMP messages."""
    control: Annotated[ControlTable, NotInATunnel()] = ControlTable()
    """The control socket and metrics."""
    fast_path: FastPathTable = FastPathTable()
    """The forwarding of packets of known flows."""
    hooks: HooksTable = HooksTable()
    """Programs that are run when ports come and go."""
    process: ProcessTable = ProcessTable()
    """The rights of a gateway that has started."""

    _toml: TomlFile = PrivateAttr()
    _warnings: list[str] = PrivateAttr()
    _prefix_files: PrefixFiles = PrivateAttr()

    def attach(self, toml: TomlFile, warnings: list[str], prefix_files: PrefixFiles) -> None:
        """Keep the file, its warnings and its lists beside the values of a checked configuration."""
        self._toml = toml
        self._warnings = warnings
        self._prefix_files = prefix_files

    @property
    def path(self) -> Path:
        """The file that was read, as the caller spelled it."""
        return self._toml.path

    @property
    def warnings(self) -> list[str]:
        """`FILE:LINE: ...` for each setting that has no effect, or not the expected one."""
        return self._warnings

    @property
    def prefix_files(self) -> PrefixFiles:
        """The prefix lists of the configuration, as they were when it was read."""
        return self._prefix_files

    @property
    def has_vpn(self) -> bool:
        """True where the tunnel has an inside. An exit node, which has no LAN, has one without `[vpn]`."""
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
        """The node that takes every destination without another route."""
        return self.vpn.node if self.vpn else None

    @property
    def announced(self) -> tuple[Prefix, ...]:
        """The prefixes that peers are told: `tunnel.announce`, else the LAN and this host where no alias hides them."""
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
        return self._toml.line(path)

    def source(self, *path: str | int) -> str:
        """The same as `FILE:LINE`."""
        return f"{self.path}:{self.line(*path)}"
