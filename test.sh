#!/bin/sh
# Installs what is missing, builds and runs all tests. Usage: ./test.sh [PRESET [CTEST-ARGUMENT…]]
set -eu
cd "$(dirname "$0")"
preset=${1:-release}
[ $# -eq 0 ] || shift
tools/build.sh "$preset"
# Process tests start services of their own: two at a time keep their deadlines honest.
exec ctest --preset "$preset" -j 2 "$@"
