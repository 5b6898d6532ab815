"""What a configuration would make of a trace of demands: simulated with the real core, in virtual time."""
