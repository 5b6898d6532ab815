"""A real upstream that is stricter than configured: what coordd learns from it, and how fast.

`python -m examples.strict_upstream` (or `make demo-upstream`) runs three scenarios, each with a real daemon,
real workers and a real HTTP server whose limiter is Flask-Limiter with moving windows:

    half      upstream allows half of what is configured, in every window
    change    it allows what is configured, and half-way through suddenly half of it
    random    it allows what is configured, and answers 429 to 1 % of the calls, at random and without headers

The workers know nothing of it: they ask for permits, call, and report the response with its headers.
"""
