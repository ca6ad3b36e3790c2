#!/usr/bin/env bash
# Fetches the WebSocket library that people use with Python, pinned by its hash, into an environment in a cache, and prints that
# environment's Python. Takes milliseconds the second time; with `--present` nothing is fetched, and it fails where nothing is.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
pins=$(cat "$here/setup.sh" "$here/requirements.txt" | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/keyward-websocket/$pins
if [ ! -e "$cache/complete" ]; then
  [ "${1:-}" != --present ] || exit 1
  mkdir -p "$cache"
  # Debian keeps a part of venv apart.
  python3 -c 'import ensurepip, venv' 2>/dev/null || "$here/../../setup.sh" python3-venv:python3-venv >&2
  python3 -m venv "$cache/venv" >&2
  "$cache/venv/bin/pip" install -q --disable-pip-version-check --require-hashes -r "$here/requirements.txt" >&2
  touch "$cache/complete"
fi
echo "$cache/venv/bin/python"
