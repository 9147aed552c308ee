#!/usr/bin/env bash
# Runs every fuzz target for a few seconds from its corpus, on the stable toolchain. SECONDS_EACH sets the time.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
tools="$target/tools"
if [[ ! -x $tools/bin/cargo-fuzz ]]; then
    cargo install --locked cargo-fuzz --version 0.13.2 --root "$tools" --target-dir "$tools/build"
    rm -rf "$tools/build"
fi
export PATH="$tools/bin:$PATH" RUSTC_BOOTSTRAP=1
cd protocol
for name in $(cargo fuzz list); do
    cargo fuzz run "$name" -- -max_total_time="${SECONDS_EACH:-10}" -rss_limit_mb=1024
done
