"""Questions and answers: the control socket with both its ends, live captures, metrics.

The way of a question: `bridgectl` -> `client.request` -> the socket -> `connection.Connection` -> the handler of its
command (`handlers.py`) -> an answer of `answers/`. The answer is a return value; nobody but the connection sends it.
"""
