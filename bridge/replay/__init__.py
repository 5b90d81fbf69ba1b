"""`bridgectl replay`: captures go through the walk, and their time stamps are the clock."""
