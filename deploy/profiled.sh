#!/usr/bin/env bash
# Builds target/profiled/release/keyward: the release build, with the compiler told by a run of the real program which ways
# requests take. It needs a quarter fewer instructions a request. Tools: h2load, and llvm-profdata of rustc's own LLVM.
set -euo pipefail
cd "$(dirname "$0")/.."

llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
tests/setup.sh "/usr/lib/llvm-$llvm/bin/llvm-profdata:llvm-$llvm" h2load:nghttp2-client curl:curl
work=$PWD/target/profiled
samples=$work/samples
rm -rf "$samples"
mkdir -p "$samples"

build() { # FLAGS FOLDER
  # --target keeps the flags from build scripts and macros.
  RUSTFLAGS=$1 cargo build --locked --release --target "$host" --target-dir "$work/$2"
}
host=$(rustc -vV | sed -n 's/^host: //p')
build "-Cprofile-generate=$samples" instrumented

"$work/instrumented/$host/release/keyward" demo --output json >"$work/demo.json" &
demo=$!
trap 'kill "$demo" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
  [ -s "$work/demo.json" ] && break
  kill -0 "$demo"
  sleep 0.1
done
field() { sed -n "1s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$work/demo.json"; }
url=$(field proxy) key=$(field key) read_only=$(field read_only_key)

printf '<item/>' >"$work/item.xml"
# load EXPECTED COUNT OPTIONS: a profile of requests that went another way than they should would be worse than none.
load() {
  local told
  told=$(h2load -n "$2" -c 32 -t 1 "${@:3}" | grep '^status codes:')
  [[ $told == *" $2 $1"* ]] || { echo "profiled: $2 requests should have got $1: $told" >&2; exit 1; }
}
# Most clients keep their connection and send a header; the rest is there so that no way counts as never taken.
load 2xx 60000 --h1 -H "Authorization: APIKEY:ORGANIZATION $key" "$url/catalog.xml"
load 2xx 30000 --h1 -H "Authorization: Bearer $key" "$url/catalog.xml"
load 4xx 30000 --h1 -H "Authorization: Bearer ${key%?}_" "$url/catalog.xml"
load 4xx 20000 --h1 "$url/catalog.xml"
load 2xx 10000 --h1 -H "X-API-Key: $read_only" "$url/catalog.xml"
load 2xx 10000 --h1 "$url/catalog.xml?a=1&api_key=$key&b=2"
load 4xx 5000 --h1 -H "Authorization: Bearer $read_only" -d "$work/item.xml" "$url/catalog.xml"
load 2xx 5000 --h1 -H "Authorization: Bearer $key" -d "$work/item.xml" "$url/catalog.xml"
load 2xx 20000 -m 8 -H "Authorization: Bearer $key" "$url/catalog.xml"
load 4xx 10000 -m 8 "$url/catalog.xml"
kill -INT "$demo"
wait "$demo" || true
trap - EXIT

"/usr/lib/llvm-$llvm/bin/llvm-profdata" merge -o "$work/keyward.profdata" "$samples"
build "-Cprofile-use=$work/keyward.profdata" build
install -D "$work/build/$host/release/keyward" "$work/release/keyward"
ls -l "$work/release/keyward"
