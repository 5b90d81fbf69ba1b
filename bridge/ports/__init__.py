"""The ports: the only place that reads and writes frames and datagrams."""
