#!/bin/sh
# Fuzzes. Needs the packages clang-14 and libclang-rt-14-dev.
#   tests/fuzz/run.sh [TARGET|all [SECONDS]]   each target for so long (60); findings fail
#   tests/fuzz/run.sh merge [TARGET|all]       takes into corpus/ what reaches new code
set -eu
cd "$(dirname "$0")/../.."
build=build/fuzz

mode=fuzz
if [ "${1:-}" = merge ]; then
  mode=merge
  shift
fi
target=${1:-all}
seconds=${2:-60}
if [ "$target" = all ]; then
  targets=$(cd tests/fuzz && ls -- *_fuzz.cc | sed 's/_fuzz\.cc$//')
else
  targets=$target
fi

cmake --preset fuzz >/dev/null
for t in $targets; do cmake --build --preset fuzz -j 2 --target "${t}_fuzz"; done

# Targets that need files write them here: a disk would be what is measured.
TMPDIR=$(mktemp -d -p /dev/shm perdure-fuzz.XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

failed=
for t in $targets; do
  corpus=tests/fuzz/corpus/$t found=$build/found/$t findings=$build/findings/$t
  mkdir -p "$corpus" "$found" "$findings"
  if [ $mode = merge ]; then
    # Edges alone, and short inputs: the corpus is for replaying, not for starting from.
    "$build/bin/${t}_fuzz" -merge=1 -use_counters=0 -max_len=1024 "$corpus" "$found"
    continue
  fi
  echo "== $t"
  "$build/bin/${t}_fuzz" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=3072 \
    -dict="tests/fuzz/dict/$t.dict" -artifact_prefix="$findings/" -print_final_stats=1 \
    -verbosity="${PERDURE_FUZZ_VERBOSITY:-1}" "$found" "$corpus" || failed="$failed $t"
done
if [ -n "$failed" ]; then
  echo "findings in$failed: the input is in $build/findings/; give it to the program as its argument"
  exit 1
fi
