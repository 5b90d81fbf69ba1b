"""Drop reasons: why a packet went no further. One name and one line of documentation each.

The values are public: `bridgectl stats`, replay events and metrics print them. They are counted by port
in `bridge.walk.counters`; the walk decides which of them owe the sender an ICMP error.
"""

from __future__ import annotations

from enum import StrEnum


class Drop(StrEnum):
    """The reasons, grouped by the floor of the walk that gives them."""

    # The frame (RFC 894, IEEE 802.3)
    ETH_SHORT = "eth.short"  # fewer than 14 bytes
    ETH_NOT_FOR_US = "eth.not_for_us"  # unicast to another station's MAC address
    ETH_SOURCE = "eth.source"  # the source MAC address is a group address, all zero, or our own
    ETH_GROUP = "eth.group"  # RFC 1812 5.3.4: unicast IP in a broadcast or multicast frame
    ETHERTYPE_IPV6 = "ethertype.ipv6"  # IPv6 is not carried
    ETHERTYPE_VLAN = "ethertype.vlan"  # an 802.1Q or 802.1ad tag
    ETHERTYPE_LLC = "ethertype.llc"  # an 802.3 length field: LLC or SNAP
    ETHERTYPE_OTHER = "ethertype.other"  # any other; `stats` counts them by number
    # The IPv4 header (RFC 1812 5.2.2: silent, always)
    IP_SHORT = "ip.short"  # fewer than 20 bytes, or a header that is longer than the packet
    IP_CHECKSUM = "ip.checksum"  # the header does not sum to all ones
    IP_VERSION = "ip.version"  # the version is not 4
    IP_HEADER_LENGTH = "ip.header_length"  # IHL below 5
    IP_TOTAL_LENGTH = "ip.total_length"  # total length below the header's, or beyond the frame's end
    IP_OPTION = "ip.option"  # RFC 1812 4.3.3.5: a malformed option, answered with 12/0
    IP_SOURCE_ROUTE = "ip.source_route"  # RFC 7126: loose or strict source route
    IP_MARTIAN_SOURCE = "ip.martian_source"  # RFC 1812 5.3.7: a source that no host may have
    IP_MARTIAN_DESTINATION = "ip.martian_destination"  # RFC 1812 5.3.7: 0/8, 127/8, 169.254/16, 240/4
    IP_SPOOFED_SOURCE = "ip.spoofed_source"  # RFC 2827: a source that does not live behind this port
    IP_BROADCAST = "ip.broadcast"  # RFC 2644: limited or directed broadcast, never forwarded
    IP_MULTICAST = "ip.multicast"  # RFC 1112: multicast is not routed, IGMP is swallowed
    IP_TTL = "ip.ttl"  # the time to live ran out, answered with 11/0
    IP_TOO_BIG = "ip.too_big"  # DF is set and the egress is narrower, answered with 3/4
    # Transport headers
    TRANSPORT_SHORT = "transport.short"  # TCP below 20 bytes, UDP or ICMP below 8, data offset or length out of range
    TRANSPORT_PORT_ZERO = "transport.port_zero"  # a TCP or UDP port of zero
    # Fragments (RFC 791, RFC 1858, RFC 3128, RFC 4787 11)
    FRAGMENT_BAD = "fragment.bad"  # a length that is no multiple of 8 with MF set, or an end beyond 65,535
    FRAGMENT_OVERLAP = "fragment.overlap"  # ranges overlap: the whole datagram is given up
    FRAGMENT_DUPLICATE = "fragment.duplicate"  # the same range again
    FRAGMENT_TIMEOUT = "fragment.timeout"  # the first fragment (or the rest, for us) did not come in time
    FRAGMENT_STORE_FULL = "fragment.store_full"  # the bounded store has no room
    FRAGMENT_DATAGRAM_DROPPED = "fragment.datagram_dropped"  # the first fragment was dropped, so is the rest
    # ARP (RFC 826, RFC 5227)
    ARP_MALFORMED = "arp.malformed"  # hardware or protocol type, a length, or a truncated packet
    ARP_OPCODE = "arp.opcode"  # neither request nor reply
    ARP_SENDER = "arp.sender"  # a sender address that must never be cached
    ARP_NOT_FOR_US = "arp.not_for_us"  # somebody else's business, nothing learned
    ARP_RATE_LIMITED = "arp.rate_limited"  # too many from senders that the table does not know
    ARP_CONFLICT = "arp.conflict"  # RFC 5227 2.4: somebody else sends from our own address
    ARP_LOCKED = "arp.locked"  # a second change of MAC address within the lock time, or of a static entry
    ARP_SUPERSEDED = "arp.superseded"  # RFC 1122 2.3.2.2: the queue is full, the oldest waiting frame gave way
    ARP_QUEUE_FULL = "arp.queue_full"  # the port's bound on all waiting frames
    ARP_NO_ANSWER = "arp.no_answer"  # three requests a second apart: answered with 3/1
    ARP_NO_SUCH_HOST = "arp.no_such_host"  # a next hop that is never resolved: outside the subnet, our own, its edges
    # NAT
    ALIAS_NO_LINK = "alias.no_link"  # to an alias address, and no link or static forward knows it: silence
    ALIAS_FILTERED = "alias.filtered"  # a link, but its inside host never sent to this remote (address-dependent)
    ALIAS_NO_PORT = (
        "alias.no_port"  # no outside port is free, or the last are kept for hosts with fewer links: answered with 3/13
    )
    ALIAS_TABLE_FULL = (
        "alias.table_full"  # max_links, or the last of them are kept for hosts with fewer: answered with 3/13
    )
    ALIAS_HOST_LIMIT = "alias.host_limit"  # max_links_per_host: answered with 3/13
    ALIAS_PROTOCOL_TAKEN = "alias.protocol_taken"  # another inside host already speaks this protocol to that remote
    ALIAS_NO_STATE = "alias.no_state"  # a packet that may not open a link (a TCP RST, an unknown ICMP type)
    ALIAS_QUOTE = "alias.quote"  # an ICMP error whose quoted packet is malformed or not ours
    # Routing
    ROUTE_UNREACHABLE = "route.unreachable"  # no route, or a private range: answered with 3/0
    ROUTE_NO_TUNNEL = "route.no_tunnel"  # the node has no session (no endpoint, or the handshake gave up): 3/1
    ROUTE_NOT_FROM_OUTSIDE = (
        "route.not_from_outside"  # from tap1, the tunnel or in a peer's name, to what is not open: silence
    )
    ROUTE_REFLECTED = "route.reflected"  # it would leave by the port it came in by
    # The tunnel: from outside (all of it in silence)
    TUNNEL_MALFORMED = "tunnel.malformed"  # no message has this type, these reserved bytes and this length
    TUNNEL_MAC1 = "tunnel.mac1"  # a handshake message of somebody who does not know our public key
    TUNNEL_COOKIE_SENT = "tunnel.cookie_sent"  # under load: a handshake message without mac2 got a cookie instead
    TUNNEL_SOURCE_LIMIT = "tunnel.source_limit"  # under load: more than 20 handshakes a second from one address
    TUNNEL_HANDSHAKE = "tunnel.handshake"  # a handshake message does not authenticate (a wrong pre-shared key too)
    TUNNEL_UNKNOWN_PEER = "tunnel.unknown_peer"  # an initiation of a public key that is no peer's
    TUNNEL_OLD_TIMESTAMP = "tunnel.old_timestamp"  # an initiation not later than the last one: recorded, or a clock
    TUNNEL_TOO_SOON = "tunnel.too_soon"  # an initiation within 20 ms of the last one
    TUNNEL_COOKIE = "tunnel.cookie"  # a cookie reply to nothing that we sent
    TUNNEL_UNKNOWN_INDEX = "tunnel.unknown_index"  # a session or handshake that we do not have (the peer restarted?)
    TUNNEL_EXPIRED = "tunnel.expired"  # under a session that is 180 s old
    TUNNEL_REPLAY = "tunnel.replay"  # a counter that was seen, or is too old
    TUNNEL_AUTHENTICATION = "tunnel.authentication"  # a data message whose tag does not fit
    TUNNEL_INNER_MALFORMED = "tunnel.inner_malformed"  # an inner packet that is neither IPv4 nor IPv6, or cut
    TUNNEL_INNER_SOURCE = "tunnel.inner_source"  # an inner source that is not the peer's own
    TUNNEL_CONTROL = "tunnel.control"  # a control message between nodes that is malformed or not known
    TUNNEL_ANNOUNCE_OLD = "tunnel.announce_old"  # an announcement, or an answer to one, that a later one has replaced
    TUNNEL_ANNOUNCE_LIMIT = "tunnel.announce_limit"  # a peer announces or answers something else too often
    TUNNEL_ANNOUNCE_REFUSED = "tunnel.announce_refused"  # a prefix that a peer announced and does not get
    TUNNEL_CONGESTION = "tunnel.congestion"  # RFC 6040: marked on the way, and its inner packet cannot be
    TUNNEL_OUTER_ICMP = "tunnel.outer_icmp"  # an ICMP error about a datagram of ours, not about its size: not heeded
    TUNNEL_SIGNAL = "tunnel.signal"  # an ICMP "too big" that quotes nothing that we sent: not believed
    # The tunnel: envelopes, which relays pass on (all of it in silence)
    TUNNEL_RELAY_MALFORMED = "tunnel.relay_malformed"  # an envelope around no message, or around another envelope
    TUNNEL_RELAY_SOURCE = "tunnel.relay_source"  # the neighbour that sent it is not the one who speaks for its source
    TUNNEL_RELAY_OFF = "tunnel.relay_off"  # it is for somebody else, and `tunnel.relay` is false
    TUNNEL_RELAY_DESTINATION = "tunnel.relay_destination"  # it is for a node that is none of our peers
    TUNNEL_RELAY_HOPS = "tunnel.relay_hops"  # as many relays as may have passed it on already
    TUNNEL_RELAY_BACK = "tunnel.relay_back"  # it would go back to the neighbour that it came from
    TUNNEL_RELAY_NO_SESSION = "tunnel.relay_no_session"  # we have no session with the next hop
    TUNNEL_RELAY_QUEUE = "tunnel.relay_queue"  # ours, waited for a session with the relay: 32 did, or for 5 s
    # The tunnel: inner packets that do not leave
    TUNNEL_NO_PEER = "tunnel.no_peer"  # the peer is not, or no longer, configured
    TUNNEL_NO_ENDPOINT = "tunnel.no_endpoint"  # nobody knows where the peer is until it calls
    TUNNEL_QUEUE_FULL = "tunnel.queue_full"  # 128 packets wait for the session, the oldest gave way
    TUNNEL_GAVE_UP = "tunnel.gave_up"  # it waited for a session, and the handshake gave up
    TUNNEL_TOO_BIG = "tunnel.too_big"  # the path became narrower while it waited: fragments, or 3/4
    # Our own addresses
    LOCAL_PORT = "local.port"  # no service here: 3/3 or a TCP reset
    LOCAL_PROTOCOL = "local.protocol"  # a protocol that we do not speak: 3/2
    LOCAL_SILENT = "local.silent"  # to us, and policy or the protocol says: no answer
    # DHCP (RFC 2131): the client of tap1
    DHCP_MALFORMED = "dhcp.malformed"  # a header, option or length that cannot be, or neither type nor server named
    DHCP_NOT_OURS = "dhcp.not_ours"  # for another client's MAC address or identifier
    DHCP_UNEXPECTED = "dhcp.unexpected"  # no answer to our latest question, or of a server that was not asked
    DHCP_REFUSED = "dhcp.refused"  # an offer or a lease that would break the gateway: the event `lease` says why
    DHCP_FORCERENEW = "dhcp.forcerenew"  # RFC 3203 6: an order to renew without authentication
    # ICMP
    ICMP_CHECKSUM = "icmp.checksum"  # RFC 5508 REQ-3: a bad checksum
    ICMP_TYPE = "icmp.type"  # a type that a NAT does not pass
    # The port it should leave by
    PORT_ABSENT = "port.absent"  # the configuration has no such port
    PORT_FULL = "port.full"  # the kernel's queue of the device is full
    PORT_DOWN = "port.down"  # the device is down
    PORT_TOO_LONG = "port.too_long"  # a sealed packet is longer than the device that it leaves by takes
    PORT_MALFORMED = "port.malformed"  # the virtio header contradicts the frame
    # Ourselves
    WALK_POLICED = "walk.policed"  # the port brings more than can be walked, and its sender more than its share
    WALK_FAULT = "walk.fault"  # a bug of ours: the walk failed on the frame, the log has it
