"""Floor 1: the gateway's own ICMP messages: echo replies and errors. RFC 792, RFC 1122 3.2.2, RFC 1812 4.3."""
