#!/usr/bin/env bash
# Fetches what the OpenAPI document is linted and the API fuzzed with, each pinned, into a cache, and prints its folder: spectral
# in node_modules/, schemathesis in venv/. Takes milliseconds the second time.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
pins=$(cat "$here/setup.sh" "$here/requirements.txt" "$here/package-lock.json" | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/keyward-api/$pins
if [ ! -e "$cache/complete" ]; then
  mkdir -p "$cache"
  cp "$here/package.json" "$here/package-lock.json" "$cache/"
  (cd "$cache" && npm ci --no-audit --no-fund --silent --ignore-scripts) >&2
  python3 -m venv "$cache/venv" >&2
  "$cache/venv/bin/pip" install -q --disable-pip-version-check --no-deps -r "$here/requirements.txt" >&2
  touch "$cache/complete"
fi
echo "$cache"
