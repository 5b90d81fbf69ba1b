"""Floor 1: an encrypted tunnel that any WireGuard peer can be the other end of. Bytes and `now` in, effects out."""
