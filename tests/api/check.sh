#!/usr/bin/env bash
# Lints the OpenAPI document of a running server, and asks that server for everything that is in it, rightly and wrongly:
# tests/api/check.sh TOOLS KEYWARD. What is answered must be what is documented, and the server must stand at the end.
set -euo pipefail
tools=$1 keyward=$(realpath "$2") here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
"$keyward" demo --output json >"$work/out" 2>"$work/err" &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true; rm -rf "$work"' EXIT
for _ in $(seq 200); do
  [ -s "$work/out" ] && break
  sleep 0.1
done
read -r admin key < <(python3 -c 'import json, sys; o = json.loads(open(sys.argv[1]).readline()); print(o["admin"], o["management_key"])' "$work/out")
export no_proxy='*'
curl -fsS "$admin/v2/openapi.json" -o "$work/openapi.json"
"$tools/node_modules/.bin/spectral" lint --quiet --ruleset "$here/spectral.yaml" --fail-severity hint "$work/openapi.json"
cd "$work" # it leaves what it has found
"$tools/venv/bin/schemathesis" run "$work/openapi.json" --url "$admin" --header "Authorization: Bearer $key" \
  --phases examples,coverage,fuzzing --max-examples "${EXAMPLES:-15}" --seed 1 --workers 1 --generation-deterministic \
  --suppress-health-check all --warnings off \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance
curl -fsS -H "Authorization: Bearer $key" "$admin/v2/keys?limit=1" -o /dev/null
