"""Floor 1: what the gateway says by ICMP itself: echo replies and errors. RFC 792, RFC 1122 3.2.2, RFC 1812 4.3."""
