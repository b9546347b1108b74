#!/bin/bash
# NeMo-RL on DGX Cloud Lepton, in the place of the script of its docs/guides/multinode-grpo-on-lepton.md:
#   .../nemo-rl/lepton.sh
# https://docs.nvidia.com/dgx-cloud/lepton/reference/cli/lep_job
lep job create --name grpo --num-workers 4 --resource-shape gpu.a100-80gb --node-group NODE_GROUP \
    --container-image REGISTRY/nemo-rl --shared-memory-size 65536 --secret RAY_BOOTSTRAP_SECRET=ray-secret \
    --env RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 \
    --command 'cd /opt/nemo-rl && exec ray-bootstrap --gcs-port=1200 -- uv run examples/run_grpo.py \
        --config examples/configs/grpo_math_8B.yaml cluster.num_nodes=$LEPTON_JOB_TOTAL_WORKERS \
        cluster.gpus_per_node=$LEPTON_RESOURCE_ACCELERATOR_NUM checkpointing.checkpoint_dir=/mnt/results'
