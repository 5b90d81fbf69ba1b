"""The store of links on records in arrays, compiled; `alias.plain` is its twin."""
