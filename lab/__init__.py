"""Floor 4: the topology in network namespaces, with real kernel stacks, as `bridgectl demo` shows it."""
