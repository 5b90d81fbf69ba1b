"""Floor 1: the DHCPv4 client of the ISP side. RFC 2131, 2132, 3396, 3442; see README.md of this room."""
