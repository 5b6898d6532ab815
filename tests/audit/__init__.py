"""Judges histories by docs/semantics.md and the protos; knows nothing of how the daemon decides."""
