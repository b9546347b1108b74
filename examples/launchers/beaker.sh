#!/bin/bash
# Beaker, by gantry, from the folder of train.py, which is in a git repository:  examples/launchers/beaker.sh
# https://github.com/allenai/beaker-gantry#multi-node
# The leader's name exists with --leader-selection and host networking only; the ports are the machine's then.
gantry run --name ray --replicas 2 --gpus 8 --gpu-type h100 --shared-memory 64GiB \
    --leader-selection --host-networking --propagate-failure --propagate-preemption --synchronized-start-timeout 5m \
    --env-secret RAY_BOOTSTRAP_SECRET=ray-secret --beaker-image me/my-image --no-python \
    -- ray-bootstrap -- python train.py
