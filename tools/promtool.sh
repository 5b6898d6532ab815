#!/usr/bin/env bash
# Puts Debian's promtool and prometheus into the folder OUT, if this machine can have them.   Usage: tools/promtool.sh OUT
# From the distribution's signed package and without installing it: no root, no service, nothing left behind. Built
# from source they would want several hundred Go modules and minutes of both cores, for two commands that only tests run.
set -euo pipefail
out=$(realpath "$1")
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo "promtool: no apt here; have it on PATH" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
download() { timeout 120 apt-get download -q=2 prometheus >/dev/null 2>&1; }
download || { timeout 120 apt-get update -q=2 >/dev/null 2>&1 && download; } || { echo "promtool: apt has no package prometheus, or can't fetch it" >&2; exit 1; }
dpkg-deb -x prometheus_*.deb .
install -m 755 usr/bin/promtool usr/bin/prometheus "$out"
