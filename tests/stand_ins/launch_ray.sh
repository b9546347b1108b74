#!/usr/bin/env bash
# Stands in for launch_ray.sh on the main node: AWS Batch or Kubernetes by their variables, a clean start, and a wait.
set -euo pipefail
if [[ -n "${AWS_BATCH_JOB_NODE_INDEX:-}" ]]; then
    [[ $AWS_BATCH_JOB_NODE_INDEX == "$AWS_BATCH_JOB_MAIN_NODE_INDEX" ]]
    NUM_NODES=$AWS_BATCH_JOB_NUM_NODES
elif [[ -n "${K8S_RANK:-}" ]]; then
    : "${K8S_MASTER_ADDR:?}" "${K8S_MASTER_PORT:?}"
    NUM_NODES=$K8S_WORLD_SIZE
else
    exit 1
fi
export NUM_NODES
ray stop --force >/dev/null 2>&1 || true
pkill -9 ray >/dev/null 2>&1 || true
ray start --head --port=6379 --dashboard-host=0.0.0.0 --dashboard-port=8265 --temp-dir=/tmp/instance_storage/ray_tmp
python - <<'EOF_PY'
import os, time, ray
ray.init(address="auto")
while sum(node["Alive"] for node in ray.nodes()) < int(os.environ["NUM_NODES"]):
    time.sleep(5)
EOF_PY
