#!/usr/bin/env bash
# Formats, lints, builds the programs once and runs every test at bounded counts; CAIRN_PROVE=1 asks for the full ones.
set -euo pipefail
# shellcheck source=tests/scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

LOG=$TARGET/test.log
started=$SECONDS

tests/scripts/setup.sh
mkdir -p "$TARGET"

say "formatting"
cargo fmt --all --check

say "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings

# One profile for programs and tests: what both depend on is compiled once.
say "building the programs"
cargo build --workspace --bins --locked

say "tests (counts: $([ "${CAIRN_PROVE:-}" = 1 ] && echo full || echo bounded))"
export CAIRN_BIN_DIR=$TARGET/debug
code=0
cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$LOG" || code=$?
# The fuzz targets keep a workspace of their own; here their seeds and some mutations run on stable Rust.
CARGO_TARGET_DIR=$TARGET/fuzz cargo test --locked --manifest-path fuzz/Cargo.toml 2>&1 | tee -a "$LOG" || code=$?

# A count is shown and fails nothing.
tests/scripts/instructions.sh || say "instructions could not be counted"

# `test result: ok. 12 passed; 0 failed; 1 ignored; …`, one line a test program.
awk -v seconds=$((SECONDS - started)) '
    /^test result:/ { programs++; passed += $4; failed += $6; ignored += $8 }
    /^test .* \.\.\. FAILED$/ { names = names "\n  failed: " $2 }
    END { printf "test summary: %d passed, %d failed, %d ignored in %d programs, %d s%s\n", passed, failed, ignored, programs, seconds, names }
' "$LOG"
exit "$code"
