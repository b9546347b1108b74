#!/bin/bash
# OpenRLHF's PPO, in the place of its examples/scripts/train_ppo_ray_slurm.sh; from its checkout:  sbatch .../openrlhf/slurm.sh
# Arguments are added to those below.
#SBATCH --job-name=openrlhf
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=24:00:00

image=REGISTRY/openrlhf # with Ray, OpenRLHF's requirements and ray-bootstrap

# The container lacks MUNGE's socket, by which the nodes would come to share a secret.
RAY_BOOTSTRAP_SECRET=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_BOOTSTRAP_SECRET

srun --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=0 --wait=0 --mpi=none \
    --container-image="$image" --container-mounts="$PWD:/openrlhf,$HOME/.cache:/root/.cache,/dev/shm" \
    --container-workdir=/openrlhf --no-container-entrypoint \
    ray-bootstrap -- \
    ray job submit --runtime-env-json='{"working_dir": "/openrlhf", "pip": "/openrlhf/requirements.txt"}' -- \
    python3 -m openrlhf.cli.train_ppo_ray \
    --actor.num_nodes 1 --actor.num_gpus_per_node 4 --ref.num_nodes 1 --ref.num_gpus_per_node 4 \
    --critic.num_nodes 1 --critic.num_gpus_per_node 4 --reward.num_nodes 1 --reward.num_gpus_per_node 4 \
    --train.colocate_actor_ref --train.colocate_critic_reward \
    --vllm.num_engines 4 --vllm.tensor_parallel_size 2 --vllm.sync_backend nccl \
    --actor.model_name_or_path OpenRLHF/Llama-3-8b-sft-mixture \
    --reward.model_name_or_path OpenRLHF/Llama-3-8b-rm-mixture \
    --data.prompt_dataset OpenRLHF/prompt-collection-v0.1 --data.input_key context_messages --data.apply_chat_template \
    --ckpt.output_dir /openrlhf/examples/checkpoint/llama3-8b-rlhf "$@"
