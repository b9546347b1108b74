#!/bin/bash
# DGX Cloud Lepton:  examples/launchers/lepton.sh
# https://docs.nvidia.com/dgx-cloud/lepton/reference/cli/lep_job
lep job create --name ray --num-workers 2 --resource-shape gpu.8xh100-80gb --node-group NODE_GROUP \
    --container-image REGISTRY/my-image --shared-memory-size 65536 --secret RAY_BOOTSTRAP_SECRET=ray-secret \
    --command 'cd /app && exec ray-bootstrap -- python train.py'
