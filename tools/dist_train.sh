#!/usr/bin/env bash
# Train with a process per device of this host: tools/dist_train.sh CONFIG NPROC [options of tools/train.py]
# On several hosts, on each: NNODES=2 NODE_RANK=0 MASTER_ADDR=host0 MASTER_PORT=29500 tools/dist_train.sh CONFIG NPROC
# MAX_RESTARTS=3 starts again after a failure, from the newest whole checkpoint.
set -euo pipefail
(($# >= 2)) || { echo "usage: $0 CONFIG NPROC [options of tools/train.py]" >&2; exit 2; }
exec "$(dirname "$0")/_torchrun.sh" train "$@"
