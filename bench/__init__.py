"""What coordd costs, measured: see `bench/README.md`. `python -m bench` prints one JSON object."""
