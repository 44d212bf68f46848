#!/usr/bin/env bash
# The same tests at their full counts of seeds, kills and flips.
set -euo pipefail
export CAIRN_PROVE=1
exec "$(dirname "${BASH_SOURCE[0]}")/test.sh"
