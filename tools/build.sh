#!/bin/sh
# Installs what is missing and builds. Usage: tools/build.sh [PRESET [TARGET…]], release by default.
set -eu
cd "$(dirname "$0")/.."
preset=${1:-release}
[ $# -eq 0 ] || shift

tools/install_packages.sh
# A link step or a Beast file takes about 1 GiB: fewer jobs where memory is short.
jobs=$(nproc)
memory_jobs=$(awk '/MemAvailable/ {n = int($2 / 1500000); print n < 1 ? 1 : n}' /proc/meminfo)
[ "$jobs" -le "$memory_jobs" ] || jobs=$memory_jobs

cmake --preset "$preset"
if [ $# -eq 0 ]; then
  cmake --build --preset "$preset" -j "$jobs"
else
  cmake --build --preset "$preset" -j "$jobs" --target "$@"
fi
