#!/bin/bash
# The command of a job on a platform that sets NODE_RANK, MASTER_ADDR and one of NNODES, NODE_COUNT, NUM_NODES on each
# node, for torchrun, such as Shanghai AI Lab's (https://github.com/InternLM/xtuner).
# JOB_NAME: whatever the platform has that is the same on all nodes of a run, and another for each run.
exec ray-bootstrap --run-id="${JOB_NAME:?}" -- python train.py
