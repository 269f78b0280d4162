#!/bin/sh
# Six models in the memory of about three, eight clients, workers killed at random, for so many
# seconds: residency_storm.sh [BIN_DIR [SECONDS [SEED]]]. Prints the table of docs/lifecycle.md.
set -eu
bin=${1:-build/release/bin}
PERDURE_STORM_SECONDS=${2:-600}
export PERDURE_STORM_SECONDS
if [ $# -ge 3 ]; then
  PERDURE_STORM_SEED=$3
  export PERDURE_STORM_SEED
fi
exec "$bin/process_tests" --gtest_filter='ResidencyStormTest.*'
