"""A deterministic simulation of coordd; see docs/testing.md."""
