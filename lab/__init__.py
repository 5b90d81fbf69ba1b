"""Floor 4: the whole topology in network namespaces, with real kernel stacks."""
