#!/bin/bash
# Any of slime's scripts/run-*.sh as it is, on all nodes of a job:  sbatch .../slime/slurm.sh scripts/run-glm5.2-744B-A40B.sh
# https://github.com/THUDM/slime; what such a script reads (BASE_DIR, SOCKET_IFNAME) comes along from your shell.
#SBATCH --job-name=slime
#SBATCH --nodes=32
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=24:00:00

image=REGISTRY/slime # slimerl/slime with ray-bootstrap
RAY_BOOTSTRAP_SECRET=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n') # the container lacks MUNGE's socket
export RAY_BOOTSTRAP_SECRET

# The script begins with `pkill -9 python`, which would end ray-bootstrap, and with `ray stop` and `ray start`: here these
# do nothing, since Ray is up. HOSTFILE, by which it would start the other nodes, is not set. Then it submits its job.
# SLIME_HOST_IP: the node's address, for slime's own servers.
srun --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=0 --wait=0 --mpi=none \
    --container-image="$image" --container-mounts="${BASE_DIR:?}:$BASE_DIR,/dev/shm" \
    --container-workdir=/root/slime --no-container-entrypoint \
    ray-bootstrap --expect-gpus=8 --dashboard-port=8265 \
    --setup='echo "SLIME_HOST_IP=$RAY_BOOTSTRAP_NODE_IP" >>"$RAY_BOOTSTRAP_ENV"' -- bash -c '
        ray() { [[ $1 == start || $1 == stop ]] || command ray "$@"; }
        pkill() { :; }
        export -f ray pkill
        exec env -u HOSTFILE bash "$@"' bash "$@"
