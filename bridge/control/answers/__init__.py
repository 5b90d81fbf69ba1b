"""The answers of the gateway: one module for each command of `bridgectl`, one function for each question.

A `Question` only looks, and its answer is one JSON document. A `Change` changes something, and gives effects that have
to be carried out besides its document. `every.py` lists them all by the command of the control socket. A daemon answers
through `bridge.control.handlers`; `bridgectl` asks a gateway of its own where no daemon runs.

Keys are public: they are added to, never renamed, and every document has `"version": 1`.
"""
