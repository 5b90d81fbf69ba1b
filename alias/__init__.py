"""Floor 1: NAT. Links between inside and outside names, rewriting of packets, fragments. RFC 4787, 5382, 5508, 7857."""
