"""Faults under traffic, and what was lost: `python -m trials.faults`.

Each case is a fault on the real topology with the real daemon: steady traffic of the flows (`trials.traffic.lasting`)
runs before, while and after, the fault is brought about and taken away, and the account says what it cost. `judge`
holds what must be true of every case; a case says which flows it may touch, which drops may be counted, and whether TCP
must survive.
"""
