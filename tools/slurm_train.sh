#!/usr/bin/env bash
#SBATCH --job-name=eyetoy
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR1@120
# Train on a Slurm cluster, a process per GPU: sbatch tools/slurm_train.sh CONFIG [options of tools/train.py]
# 120 seconds before the time is over, and when it is preempted, it saves and is queued again; --resume goes on from there.
set -euo pipefail
(($# >= 1)) || { echo "usage: sbatch $0 CONFIG [options of tools/train.py]" >&2; exit 2; }
cd "${SLURM_SUBMIT_DIR:-.}"
status=0
srun --kill-on-bad-exit=1 "${PYTHON:-python}" tools/train.py "$1" --launcher slurm --resume "${@:2}" || status=$?
# 85: it was told to stop, and has saved. 138: USR1 came while it was starting, when it has nothing to save yet.
if ((status == 85 || status == 138)); then
    scontrol requeue "${SLURM_JOB_ID:?}"
    exit 0
fi
exit "$status"
