"""The sockets of the tunnel: datagrams in bursts, and by which device and from which address each one leaves."""
