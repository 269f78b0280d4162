#!/bin/sh
# How what was said to be stored outlives deaths and power cuts: a table for docs/snapshots.md.
# Usage: bench/snapshot_storm.sh [ROUNDS]; after a build of the preset release.
set -eu
cd "$(dirname "$0")/.."
export PERDURE_SNAPSHOT_STORM_ROUNDS="${1:-2000}"
output=$(mktemp)
trap 'rm -f "$output"' EXIT
if ! build/release/bin/process_tests --gtest_filter='SnapshotStorm.*' >"$output" 2>&1; then
  cat "$output" >&2
  exit 1
fi
grep '^|' "$output"
