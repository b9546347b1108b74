#!/bin/bash
# Stands in for slime's scripts/run-*.sh: what it does to processes and Ray, in its order, around a job that takes a second.
pkill -9 sglang
ray stop --force
pkill -9 ray
pkill -9 python

set -ex
# Without NVLink grep fails in here, which `set -o pipefail` would make fatal.
NVLINK_COUNT=$(nvidia-smi topo -m 2>/dev/null | grep -o 'NV[0-9][0-9]*' | wc -l)

if [ -z "${MASTER_ADDR:-}" ]; then
    echo "MASTER_ADDR is not set"
    exit 1
fi
export no_proxy="localhost,127.0.0.1,${MASTER_ADDR}"
ray start --head --node-ip-address "${MASTER_ADDR}" --num-gpus 8 --disable-usage-stats --dashboard-host=0.0.0.0 \
    --dashboard-port=8265
if [ -n "${HOSTFILE:-}" ]; then
    ssh root@10.77.0.9 "ray start --address=${MASTER_ADDR}:6379"
fi

ray job submit --address="http://127.0.0.1:8265" \
    --runtime-env-json="{\"env_vars\": {\"MASTER_ADDR\": \"${MASTER_ADDR}\", \"NVLINK\": \"${NVLINK_COUNT}\"}}" \
    -- python3 -c 'import os; print("slime leads from", os.environ["MASTER_ADDR"])'
