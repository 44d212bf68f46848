#!/usr/bin/env bash
# Runs every fuzz target for FUZZ_SECONDS seconds (60 unless told), one after the other, beginning with the committed
# seeds. FUZZ_TARGETS="resp manifest" runs only those.
set -euo pipefail
# shellcheck source=tests/scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

SECONDS_EACH=${FUZZ_SECONDS:-60}
[[ $SECONDS_EACH =~ ^[1-9][0-9]*$ ]] || fail "FUZZ_SECONDS must be a number of seconds, not '$SECONDS_EACH'"

read -ra targets <<<"${FUZZ_TARGETS:-$(find fuzz/fuzz_targets -name '*.rs' -exec basename {} .rs \; | sort | tr '\n' ' ')}"

missing=()
cargo +nightly --version >/dev/null 2>&1 || missing+=("a nightly compiler: rustup toolchain install nightly --profile minimal")
cargo fuzz --version >/dev/null 2>&1 || missing+=("cargo-fuzz: cargo install cargo-fuzz --locked")
if ((${#missing[@]})); then
    say "libFuzzer is not to be had, so mutations of the seeds are tried blindly: nothing tells what they reach. For more:"
    printf '    %s\n' "${missing[@]}" >&2
    for target in "${targets[@]}"; do
        say "mutating the seeds of $target for $SECONDS_EACH s"
        # Another beginning each time, and printed with what fails.
        CAIRN_FUZZ_SEED=${FUZZ_SEED:-$(date +%s)} CAIRN_FUZZ_SECONDS=$SECONDS_EACH CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$TARGET/fuzz} \
            cargo test --locked --quiet --manifest-path fuzz/Cargo.toml --test smoke -- --exact "$target" --nocapture ||
            fail "the input is in fuzz/artifacts/$target; see fuzz/README.md"
    done
    exit 0
fi

failed=()
for target in "${targets[@]}"; do
    say "fuzzing $target for $SECONDS_EACH s"
    # What a run finds that is new goes to fuzz/corpus, which is not committed; the seeds stay as they are.
    mkdir -p "fuzz/corpus/$target"
    cargo +nightly fuzz run --features libfuzzer "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$SECONDS_EACH" -max_len=16384 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 || failed+=("$target")
done
((${#failed[@]} == 0)) || fail "inputs that fail are in fuzz/artifacts for: ${failed[*]}; see fuzz/README.md"
