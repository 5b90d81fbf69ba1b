"""State that outlives the process: links, leases and handshake time stamps on disk."""
