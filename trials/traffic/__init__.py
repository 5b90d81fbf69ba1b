"""Makers of traffic, each a program that runs inside a namespace of the lab."""
