#!/usr/bin/env bash
# Fuzzes each target (or those named) for so many minutes on the pinned toolchain: run.sh MINUTES [TARGET]…
# What is found stays in fuzz/target/found; `run.sh keep TARGET` takes into the corpus what reaches more of the code.
# Coverage is counted by LLVM's own pass, as cargo-fuzz does with --sanitizer none: that needs no nightly compiler.
set -euo pipefail
cd "$(dirname "$0")"

export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
 -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
host=$(rustc -vV | sed -n 's/^host: //p')
minutes=${1:?how many minutes}
# To libFuzzer no time is for ever.
[[ $minutes = keep || $minutes =~ ^[1-9][0-9]*$ ]] || { echo "run.sh: how many whole minutes? $minutes are none" >&2; exit 2; }
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cd corpus && printf '%s\n' *)

# With --target, build scripts and macros are spared the counters. Not --locked: the dependencies of Keyward move on without
# this folder.
cargo build --release --target "$host"
for target in "${targets[@]}"; do
  found="target/found/$target"
  mkdir -p "$found" "artifacts/$target"
  run=("target/$host/release/$target" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -artifact_prefix="artifacts/$target/")
  if [ "$minutes" = keep ]; then
    "${run[@]}" -merge=1 "corpus/$target" "$found"
  else
    echo "fuzz: $target for $minutes minutes"
    "${run[@]}" -max_total_time=$((minutes * 60)) -print_final_stats=1 "$found" "corpus/$target" 2>&1 | tail -n 12
  fi
done
