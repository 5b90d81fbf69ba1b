"""Long runs: `days` simulates a LAN under a virtual clock, `live` runs two daemons under changing traffic."""
