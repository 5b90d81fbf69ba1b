"""Files of wg-quick(8): `reading` parses one, `importing` makes a configuration from it, `exporting` writes one."""
