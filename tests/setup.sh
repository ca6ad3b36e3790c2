#!/usr/bin/env bash
# Installs what the tests run besides Rust, gcc, Python and Node: a few Debian 12 packages.
# Changes nothing, and takes milliseconds, when all of it is there. Starts no service.
# With arguments of the form program:package it installs those instead.
set -euo pipefail

# A program (or a file) the tests call, and the package that has it.
needs=(
  icecast2:icecast2     # an old XML server, as the upstream that is never modified
  promtool:prometheus   # judges /metrics and the alert rules
  prometheus:prometheus # scrapes a running proxy
  curl:curl             # runs the commands of the README as they stand there
  openssl:openssl       # a TLS client that keeps its connection
  pgrep:procps          # looks for processes left behind
  fuser:psmisc          # tells who holds a port
  h2load:nghttp2-client # many streams on one connection
  nginx:nginx           # in front, as people have it
  /usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream # the PROXY protocol of nginx
  haproxy:haproxy       # in front, with the PROXY protocol in both versions
  /usr/lib/python3/dist-packages/requests/api.py:python3-requests # uploads what no memory holds
  initdb:postgresql     # a database server that lives as long as the tests do
  pgbouncer:pgbouncer   # a pooler before it, that swallows notifications
  faketime:faketime     # a process whose clock is wrong
  git:git               # names the files that are part of the project
)
[ $# -eq 0 ] || needs=("$@")

PATH="$PATH:/usr/sbin:/sbin"
# Debian keeps the programs of PostgreSQL where no PATH leads, by version.
for bin in /usr/lib/postgresql/*/bin; do PATH="$PATH:$bin"; done
missing=()
for need in "${needs[@]}"; do
  what=${need%%:*}
  [ -e "$what" ] || command -v "$what" >/dev/null || missing+=("${need##*:}")
done
[ ${#missing[@]} -gt 0 ] || exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

by_hand() {
  echo "setup: $1; please install: ${missing[*]}" >&2
  exit 1
}
command -v apt-get >/dev/null || by_hand "this is no Debian system"
root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || by_hand "not root, and there is no sudo"
  root=(sudo)
fi

# While this file says 101, installing a package does not start its service.
guard=/usr/sbin/policy-rc.d
if [ ! -e "$guard" ]; then
  trap '"${root[@]}" rm -f "$guard"' EXIT
  printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$guard" >/dev/null
  "${root[@]}" chmod 755 "$guard"
fi

echo "setup: installing ${missing[*]}"
apt() { "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@"; }
apt update
apt install -y --no-install-recommends "${missing[@]}"
