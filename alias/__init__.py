"""Floor 1: NAT. Links between inside and outside names, and the rewriting of packets. RFC 4787, 5382, 5508, 7857, 3022."""
