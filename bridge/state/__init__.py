"""State that outlives the process: NAT links and handshake time stamps on disk."""
