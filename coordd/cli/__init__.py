"""The command line: `coordd` (daemon.py) runs the daemon, `coordctl` (all else) talks to one from outside."""
