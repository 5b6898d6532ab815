#!/usr/bin/env bash
# Builds the program of a Go module to OUT.   Usage: tools/build_go.sh PYTHON MODULE PACKAGE OUT
# MODULE: a folder beside this file, with its pinned go.mod.  PACKAGE: what to build there, `.` or a tool's path.
# Uses the Go on PATH if it can read go.mod; else installs a pinned one, as a package, beside PYTHON.
# Go's own toolchain download is off: what builds is what is on the machine or in requirements/tools.txt.
set -euo pipefail
cd "$(dirname "$0")/$2"
python=$1 package=$3 out=$4
export GOTOOLCHAIN=local GOWORK=off

usable() { "$1" -C . list -m >/dev/null 2>&1; }

go=go
if ! usable "$go"; then
  go=$(dirname "$python")/go
  usable "$go" || "$python" -m pip install --quiet --require-hashes -r ../../requirements/tools.txt || true
fi
usable "$go" || { echo "$2: no Go that meets go.mod, and none could be installed" >&2; exit 1; }

version=$("$go" list -f '{{with .Module}}{{.Version}}{{end}}' "$package")
"$go" build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version" -o "$out" "$package"
