"""Floor 1: next hops on an Ethernet port. RFC 826, RFC 1122 2.3.2, RFC 5227; see README.md of this room."""
