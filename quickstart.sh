#!/bin/sh
# Installs what is missing, builds, starts the service with the built-in model and shows that answers
# and conversations outlive its processes. Arguments go to `perdure demo`, e.g. --port 8080 or --once.
set -eu
cd "$(dirname "$0")"
tools/build.sh release perdure perdure-supervisor perdure-worker perdure-frontend
exec build/release/bin/perdure demo "$@"
