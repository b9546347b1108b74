#!/bin/bash
# vLLM on machines with docker, in the place of its run_cluster.sh; the same command on each of them, in the place of one with
# --head, others with --worker, and `docker exec` on the head:
#   .../vllm/docker.sh HEAD_ADDRESS NODES RUN [ADDRESS]      ADDRESS: this machine's, where it has several
# https://docs.vllm.ai/en/latest/serving/parallelism_scaling.html
head=$1 nodes=$2 run=$3 own=$4
exec docker run --rm --network host --ipc host --gpus all -v "$HOME/.cache/huggingface:/root/.cache/huggingface" \
    -e HF_TOKEN -e RAY_BOOTSTRAP_SECRET REGISTRY/vllm \
    --address="$head" --nodes="$nodes" --run-id="$run" ${own:+--node-ip="$own"} -- \
    vllm serve meta-llama/Llama-3.1-405B-Instruct --tensor-parallel-size 8 --pipeline-parallel-size "$nodes" \
    --distributed-executor-backend ray
