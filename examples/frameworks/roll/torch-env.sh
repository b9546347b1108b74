#!/bin/bash
# ROLL: the command of a job on a platform that sets RANK, WORLD_SIZE (nodes), MASTER_ADDR and MASTER_PORT on each node, such
# as Alibaba's PAI DLC; from its checkout. https://github.com/alibaba/ROLL, docs_roll/docs/Getting Started/Quick Start
# JOB_NAME: whatever the platform has that is the same on all nodes of a run, and another for each run.
export PYTHONPATH=$PWD:$PYTHONPATH
exec ray-bootstrap --run-id="${JOB_NAME:?}" --gcs-port="${MASTER_PORT:-6379}" -- \
    python examples/start_agentic_pipeline.py \
    --config_path agentic_demo --config_name agent_val_frozen_lake_multi_nodes_demo "$@"
