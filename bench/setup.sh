#!/usr/bin/env bash
# Installs what run.py uses: nginx, HAProxy, wrk, h2load, openssl and strace from Debian, and floor (a bare relay
# that is also the upstream and the open-loop load generator), built into $BENCH_TOOLS
# (default: keyward-bench in the user's cache folder). Under a minute.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
tools="${BENCH_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/keyward-bench}"

"$here/../tests/setup.sh" nginx:nginx haproxy:haproxy wrk:wrk h2load:nghttp2-client openssl:openssl strace:strace
cargo build --release --locked --manifest-path "$here/peers/floor/Cargo.toml" --target-dir "$tools/target-floor"
mkdir -p "$tools/bin"
install -m755 "$tools/target-floor/release/floor-proxy" "$tools/bin/floor-proxy"
echo "tools are in place: $tools"
