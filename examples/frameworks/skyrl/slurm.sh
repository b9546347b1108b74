#!/bin/bash
# SkyRL on the nodes of a job; from its checkout, on a file system that all nodes see:  sbatch .../skyrl/slurm.sh
# https://docs.skyrl.ai/docs/getting-started/installation. Arguments are added to those below.
#SBATCH --job-name=skyrl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=24:00:00

data=$HOME/data/gsm8k
ray_bootstrap=$HOME/ray-bootstrap # its checkout; Ray is the one of SkyRL's uv.lock, for ray-bootstrap too
# Before Ray, on all nodes: uv fills its cache when the first worker starts, which takes minutes.
export RAY_worker_register_timeout_seconds=600

srun --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=0 --wait=0 --mpi=none \
    uv run --isolated --extra fsdp --with "$ray_bootstrap" ray-bootstrap --expect-gpus=8 -- \
    uv run --isolated --extra fsdp -m skyrl.train.entrypoints.main_base \
    data.train_data="['$data/train.parquet']" data.val_data="['$data/validation.parquet']" environment.env_class=gsm8k \
    trainer.strategy=fsdp trainer.policy.model.path=Qwen/Qwen2.5-1.5B-Instruct trainer.placement.colocate_all=true \
    trainer.placement.policy_num_nodes="$SLURM_JOB_NUM_NODES" trainer.placement.policy_num_gpus_per_node=8 \
    trainer.placement.ref_num_nodes="$SLURM_JOB_NUM_NODES" trainer.placement.ref_num_gpus_per_node=8 \
    generator.inference_engine.backend=vllm generator.inference_engine.num_engines=$((SLURM_JOB_NUM_NODES * 8)) \
    generator.inference_engine.tensor_parallel_size=1 trainer.ckpt_path="$HOME/ckpts/gsm8k" "$@"
