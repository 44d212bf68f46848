#!/usr/bin/env bash
# The same tests at their full counts of seeds, kills and flips, and then Redis's own suite with its slow tests.
set -uo pipefail
export CAIRN_PROVE=1
scripts=$(dirname "${BASH_SOURCE[0]}")
code=0
"$scripts/test.sh" || code=$?
MODE=external "$scripts/redis-suite.sh" || code=$?
MODE=own "$scripts/redis-suite.sh" || code=$?
exit "$code"
