"""Cables of the lab that do damage, and a router with a narrow path between both ends of the tunnel."""
