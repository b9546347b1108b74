#!/bin/bash
# Xtuner: its examples/v1/scripts/run_rl_submit.sh as it is, with that script's arguments, as the command of a job on a
# platform that sets NODE_RANK, NODE_COUNT and MASTER_ADDR on each node; from its checkout:
#   .../xtuner/torch-env.sh examples/v1/config/rl_qwen3_8B_grpo.py sglang MODEL DATA [EVAL_DATA] [gpu|npu] [PER_NODE]
# JOB_NAME: whatever the platform has that is the same on all nodes of a run, and another for each run.
# `ray start` and `ray stop` do nothing, since Ray is up; pipefail, or tee's 0 would be the job's status.
exec ray-bootstrap --run-id="${JOB_NAME:?}" --dashboard-port=8265 -- bash -c '
    ray() { [[ $1 == start || $1 == stop ]] || command ray "$@"; }
    export -f ray
    exec bash -o pipefail examples/v1/scripts/run_rl_submit.sh "$@"' bash "$@"
