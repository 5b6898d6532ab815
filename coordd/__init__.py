"""Coordination daemon: who may act on what, how many at once, and when."""
