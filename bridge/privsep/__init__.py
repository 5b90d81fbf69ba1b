"""Separation of privileges: a helper process makes the devices as root, the gateway gives its rights up and is
confined.

The helper is one process with two programs, one after the other: `maker.py` makes the devices, and executes `warden.py`
in its own place where something is left to do. `helper.py` is the gateway's side of both, `order.py` and `messages.py`
are all that is sent to them.
"""
