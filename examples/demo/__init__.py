"""The main job on real input: a fleet of worker processes answers real tweets through coordd, once each.

Run it with `make demo`, or `python -m examples.demo --help`. What each module owns:

    settings   the windows, in one place: daemon's configuration and upstream's limits are made from them
    tweets     the input and its compressed arrival times
    upstream   a real HTTP server whose limiter is Flask-Limiter; it keeps its own log of what came in
    worker     one process of the fleet: lock, permit, POST, RecordUsage, release
    journal    what a worker writes down before and after each call
    processes  starting and ending the processes of the demo, and nobody else's
    audit      what the run proved: pure functions over the logs
    report     the figures, made from all logs, and the table
    run        the course of the demo: start all, kill a worker, kill the daemon, audit
"""
