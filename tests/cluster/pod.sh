#!/usr/bin/env bash
# The image in a real Pod: builds it from a program that is there, dynamic or static, and runs pod.py. Where nobody may make
# namespaces (in some containers) it says so and does nothing.
#
#     pod.sh TOOLS PROGRAM KEYWARD        PROGRAM goes into the image, KEYWARD makes the keys
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tools=$1 program=$2 keyward=$3
if [ "$(id -u)" != 0 ] || ! unshare -mnpf true 2>/dev/null; then
  echo "pod: not run: it needs root and namespaces"
  exit 0
fi
"$here/../setup.sh" buildah:buildah podman:podman runc:runc catatonit:catatonit /usr/lib/podman/netavark:netavark \
  icecast2:icecast2 prometheus:prometheus curl:curl openssl:openssl
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
PATH="$tools/venv/bin:$PATH" "$here/../../deploy/image.sh" "$out" "$program"
"$tools/venv/bin/python" "$here/pod.py" "$tools" "$out/keyward.tar" "$keyward"
