"""The messages of the gateway to its warden: there are no others."""

OPEN = b"open "
"""With a path, and a descriptor of a socket on which the answer goes: a descriptor, or the number of an error."""

END = b"end"
"""Remove what is yours to remove, and end."""
