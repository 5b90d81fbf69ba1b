"""Files of wg-quick(8): `reading` parses one, `importing` makes our configuration of it, `exporting` writes one for a
peer."""
