"""Where a packet goes, as a value: `decision` asks the other files, and none of them sends or counts anything.

`crossing` says which packets keep their address and which may cross at all, `icmp_errors` finds the link of a quoted
packet, `reply_to` keeps the way back to visitors of static forwards, `nodes` knows which nodes can be reached, and
`peer_prefixes` whose an inner address is.
"""
