#!/usr/bin/env bash
# Generates coordd/v1 and docs/api.md from protos/, docs/configuration.md from coordd/config, docs/metrics.md from
# coordd/telemetry, and the Grafana dashboard, into OUT.   Usage: tools/gen.sh PYTHON OUT
# Output goes to the package path that the proto package names, so no import needs rewriting.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 out=$2
mkdir -p "$out/coordd/v1" "$out/docs" "$out/deploy/grafana"
rm -f "$out"/coordd/v1/*_pb2*.py "$out"/coordd/v1/*_pb2*.pyi # those of a proto since deleted

descriptors=$(mktemp)
trap 'rm -f "$descriptors"' EXIT
PATH="$(dirname "$python"):$PATH" "$python" -m grpc_tools.protoc \
  --proto_path=protos \
  --python_out="$out" --mypy_out="quiet:$out" \
  --grpc_python_out="$out" --mypy_grpc_out="quiet:$out" \
  --descriptor_set_out="$descriptors" --include_source_info \
  $(cd protos && find coordd -name '*.proto' | LC_ALL=C sort)

echo '"""Generated from protos/coordd/v1 by `make gen`; not edited by hand."""' >"$out/coordd/v1/__init__.py"
"$python" tools/gen_api_docs.py "$descriptors" >"$out/docs/api.md"
"$python" tools/gen_config_docs.py >"$out/docs/configuration.md"
"$python" tools/gen_metrics_docs.py >"$out/docs/metrics.md"
"$python" tools/gen_dashboard.py >"$out/deploy/grafana/coordd.json"
