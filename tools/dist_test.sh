#!/usr/bin/env bash
# Evaluate with a process per device of this host: tools/dist_test.sh CONFIG CHECKPOINT NPROC [options of tools/test.py]
# On several hosts as tools/dist_train.sh. The metrics are those of one process.
set -euo pipefail
(($# >= 3)) || { echo "usage: $0 CONFIG CHECKPOINT NPROC [options of tools/test.py]" >&2; exit 2; }
exec "$(dirname "$0")/_torchrun.sh" test "$1" "$3" "$2" "${@:4}"
