"""One peer of the tunnel: its handshake, its sessions, its timers and its announced prefixes. Begin with `peer.py`."""
