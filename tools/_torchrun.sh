#!/usr/bin/env bash
# What dist_train.sh and dist_test.sh have in common: _torchrun.sh train|test CONFIG NPROC [more arguments of the tool]
set -euo pipefail
tool=$(dirname "$0")/$1.py config=$2 processes=$3
shift 3
[[ $processes =~ ^[1-9][0-9]*$ ]] || { echo "NPROC is a number of processes, not '$processes'" >&2; exit 2; }
where=(--standalone)
if [[ -n ${NNODES:-} && $NNODES != 1 ]]; then
    where=(--nnodes "$NNODES" --rdzv_backend c10d --rdzv_id "${RUN_ID:-${SLURM_JOB_ID:-eyetoy}}"
        --rdzv_endpoint "${MASTER_ADDR:?the host of the first node}:${MASTER_PORT:-29500}")
fi
# A store for each attempt: in the launcher's own the addresses of processes that died stay.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# Slurm tells every process of a step; torchrun would die of USR1, and leave its workers alone.
# Not of INT: it ends workers unsaved. A terminal sends it to all, background processes ignore it, and `tell` makes it TERM.
export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGHUP,SIGQUIT,SIGUSR1

# torchrun says 1 where it was told to stop; whoever queues the run again looks for 85, which train.py says.
told='' child=''
tell() { told=yes; kill -TERM "$child" 2> /dev/null || true; }
trap tell TERM USR1 INT HUP
"${PYTHON:-python}" -m torch.distributed.run "${where[@]}" --nproc_per_node "$processes" \
    --max_restarts "${MAX_RESTARTS:-0}" "$tool" "$config" --launcher pytorch "$@" &
child=$!
[[ -z $told ]] || tell # before there was a number to tell it by
while status=0; wait "$child" || status=$?; kill -0 "$child" 2> /dev/null; do :; done # a signal ends a wait
[[ -n $told && $status != 0 ]] && exit 85
exit "$status"
