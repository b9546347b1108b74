#!/bin/bash
# miles' 16-node recipe, in the place of its examples/experimental/openenv/glm52_tbench2/launch_16node_slurm.sh:
#   sbatch --export=ALL .../miles/slurm.sh [--num-rollout 10 ...]
#SBATCH --job-name=miles
#SBATCH --nodes=16
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=48:00:00

# As there, but for the last: the network itself in the place of FABRIC_PREFIX=10.4.
: "${MILES_ROOT:?}" "${CONTAINER_IMAGE:?}" "${CONTAINER_MOUNTS:?}" "${DAYTONA_ENV_FILE:?}" "${FABRIC:?such as 10.4.0.0/16}"
export MILES_ROOT DAYTONA_ENV_FILE
# For Ray's workers on all nodes, hence here. The second: miles finds Ray up, and only submits its job.
export PYTHONNOUSERSITE=1 PYTHONPATH=$MILES_ROOT RAY_memory_monitor_refresh_ms=0
export MILES_SCRIPT_EXTERNAL_RAY=1
RAY_BOOTSTRAP_SECRET=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n') # the container lacks MUNGE's socket
export RAY_BOOTSTRAP_SECRET

srun --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=0 --wait=0 --mpi=none \
    --container-image="$CONTAINER_IMAGE" --container-mounts="$CONTAINER_MOUNTS" --no-container-entrypoint \
    ray-bootstrap --interface="$FABRIC" --expect-gpus=4 --dashboard-wait=60s -- bash -c '
        source "$DAYTONA_ENV_FILE"
        export OPENENV_RUN_ID=${OPENENV_RUN_ID:-$SLURM_JOB_ID}
        cd "$MILES_ROOT" || exit
        exec python3 examples/experimental/openenv/glm52_tbench2/run_glm5_2_744b_a40b_daytona.py \
            train --num-nodes "$SLURM_JOB_NUM_NODES" "$@"' bash "$@"
