#!/usr/bin/env bash
# Builds the image of Keyward with buildah: no Docker, no daemon, no base image.
#
#     deploy/image.sh OUT [PROGRAM]
#
# OUT/oci is the image as an OCI layout, OUT/keyward.tar the same for `docker load` and `podman load`, OUT/sbom.json what is in
# it (CycloneDX, if there is syft). Without PROGRAM it is built first, which takes minutes. The same program, or the same source
# and toolchain in the same folder, gives the same digest.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: deploy/image.sh OUT [PROGRAM]}
program=${2:-}
target=$(uname -m)-unknown-linux-gnu
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
if [ -z "$program" ]; then
  RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-T,$PWD/deploy/order.ld --remap-path-prefix=$PWD=keyward --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo" \
    cargo build --locked --release --target "$target"
  program=target/$target/release/keyward
fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The first stage of the Dockerfile is replaced by a folder with what it would make.
mkdir -p "$work/build/out" "$work/context"
install -m 0755 "$program" "$work/build/out/keyward"
# A program that is not static brings its libraries along: for tests with a build that is there already.
if interpreter=$(ldd "$program" 2>/dev/null) && [[ $interpreter == *"=>"* ]]; then
  echo "image: $program is not static; its libraries come along, for tests only" >&2
  libraries=1
fi
sed -n '/^FROM scratch/,$p' deploy/Dockerfile > "$work/Dockerfile"
if [ -n "${libraries:-}" ]; then
  for library in $(grep -oE '/[^ ]+' <<< "$interpreter"); do
    install -D -m 0755 "$library" "$work/build/out/libraries$library"
  done
  sed -i 's#^USER#COPY --from=build /out/libraries/ /\nUSER#' "$work/Dockerfile"
fi
buildah=(buildah --root "$work/store" --runroot "$work/run" --storage-driver vfs)
"${buildah[@]}" bud -q --isolation chroot --timestamp 0 --no-cache --format oci --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
  --build-context "build=$work/build" -f "$work/Dockerfile" -t localhost/keyward:"$version" "$work/context" 2> "$work/errors" >/dev/null || { cat "$work/errors" >&2; exit 1; }
rm -rf "$out/oci" "$out/keyward.tar"
"${buildah[@]}" push -q localhost/keyward:"$version" "oci:$out/oci:$version"
"${buildah[@]}" push -q localhost/keyward:"$version" "docker-archive:$out/keyward.tar:localhost/keyward:$version"
if command -v syft >/dev/null; then
  # A program tells nobody what it was linked from; of the lock file this is what went into it, without what tests need.
  mkdir "$work/sources"
  cargo tree --locked --offline -e normal,build --target "$target" --prefix none --format '{p}' | awk '{ print $1, substr($2, 2) }' | sort -u > "$work/used"
  awk -v RS= 'NR == FNR { split($0, used, "\n"); for (at in used) is[used[at]] = 1; next }
    FNR == 1 || (match($0, /name = "[^"]*"/) && (name = substr($0, RSTART + 8, RLENGTH - 9)) != "" && match($0, /version = "[^"]*"/) \
      && is[name " " substr($0, RSTART + 11, RLENGTH - 12)]) { print $0 "\n" }' "$work/used" Cargo.lock > "$work/sources/Cargo.lock"
  SYFT_CHECK_FOR_APP_UPDATE=false syft -q scan "dir:$work/sources" --source-name keyward --source-version "$version" -o cyclonedx-json > "$out/sbom.json"
fi
digest=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["manifests"][0]["digest"])' "$out/oci/index.json")
bytes=$(stat -c %s "$work/build/out/keyward")
echo "localhost/keyward:$version $digest, program $bytes bytes"
[ -n "${libraries:-}" ] || [ "$bytes" -le 20000000 ] || { echo "image: the program has grown beyond 20 MB" >&2; exit 1; }
