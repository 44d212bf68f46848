#!/usr/bin/env bash
# Runs every fuzz target for FUZZ_SECONDS seconds (60 unless told), one after the other, beginning with the committed
# seeds. FUZZ_TARGETS="resp manifest" runs only those.
set -euo pipefail
# shellcheck source=tests/scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

SECONDS_EACH=${FUZZ_SECONDS:-60}
[[ $SECONDS_EACH =~ ^[1-9][0-9]*$ ]] || fail "FUZZ_SECONDS must be a number of seconds, not '$SECONDS_EACH'"

missing=()
cargo +nightly --version >/dev/null 2>&1 || missing+=("a nightly compiler: rustup toolchain install nightly --profile minimal")
cargo fuzz --version >/dev/null 2>&1 || missing+=("cargo-fuzz: cargo install cargo-fuzz --locked")
if ((${#missing[@]})); then
    printf 'error: fuzzing needs %s\n' "${missing[@]}" >&2
    fail "without them, cargo test --manifest-path fuzz/Cargo.toml replays the seeds and mutations of them"
fi

read -ra targets <<<"${FUZZ_TARGETS:-$(find fuzz/fuzz_targets -name '*.rs' -exec basename {} .rs \; | sort | tr '\n' ' ')}"
failed=()
for target in "${targets[@]}"; do
    say "fuzzing $target for $SECONDS_EACH s"
    # What a run finds that is new goes to fuzz/corpus, which is not committed; the seeds stay as they are.
    mkdir -p "fuzz/corpus/$target"
    cargo +nightly fuzz run --features libfuzzer "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$SECONDS_EACH" -max_len=16384 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 || failed+=("$target")
done
((${#failed[@]} == 0)) || fail "inputs that fail are in fuzz/artifacts for: ${failed[*]}; see fuzz/README.md"
