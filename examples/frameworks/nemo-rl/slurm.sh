#!/bin/bash
# NeMo-RL, in the place of its ray.sub, with the same variables; from its checkout, on a file system that all nodes see:
#   COMMAND="uv run ./examples/run_grpo.py" CONTAINER=... MOUNTS="$PWD:$PWD" sbatch .../nemo-rl/slurm.sh
# Without COMMAND the cluster stays: srun --jobid=JOB --overlap --nodes=1 --container-name=ray --pty ray-bootstrap exec
#SBATCH --job-name=nemo-rl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=4:00:00

: "${CONTAINER:?}" "${MOUNTS:=$PWD:$PWD}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-16}
export RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 # NeMo-RL makes the environments of its workers itself, once a node
unset UV_CACHE_DIR                     # of the machine, not of the container
RAY_BOOTSTRAP_SECRET=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n') # the container lacks MUNGE's socket
export RAY_BOOTSTRAP_SECRET

# By these resources NeMo-RL orders its ranks: the NVLink domain, where there is one, and the place in the job from 1.
topology='domain=$(nvidia-smi -q 2>/dev/null | awk -F": *" "/ClusterUUID/ { print \$2; exit }")
echo "RAY_BOOTSTRAP_RESOURCES={${domain:+\"nvlink_domain_$domain\": 1, }\"topo_rank\": $((SLURM_NODEID + 1))}" >>"$RAY_BOOTSTRAP_ENV"'

# The ports: 1200 and 2000-2999 are Ray's in the map of ray.sub, whose others NeMo-RL uses (6379 is its sandbox's).
srun --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=0 --wait=0 --mpi=none \
    --container-image="$CONTAINER" --container-name=ray --container-mounts="$MOUNTS,/dev/shm" --no-container-mount-home \
    --container-workdir="$SLURM_SUBMIT_DIR" --no-container-entrypoint \
    ray-bootstrap --gcs-port=1200 --rollcall-port=1210 --min-worker-port=2000 --max-worker-port=2999 \
    --expect-gpus="${GPUS_PER_NODE:-8}" --setup="${SETUP_COMMAND:-:}" --setup="$topology" ${COMMAND:+-- bash -c "$COMMAND"}
