"""Separation of privileges: a helper process makes the devices as root, the gateway gives its rights up and is
confined."""
