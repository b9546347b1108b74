#!/bin/bash
# verl's PPO, in the place of its examples/tutorial/slurm/ray_on_slurm.slurm:  sbatch .../verl/slurm.sh
# Arguments are added to those below.
#SBATCH --job-name=verl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=64
#SBATCH --mem=200G
#SBATCH --time=01:00:00

verl_workdir=/path/to/verl
data=/path/to/gsm8k
image=/path/to/verl-ngc.sif # with ray-bootstrap

# The container lacks MUNGE's socket, by which the nodes would come to share a secret.
RAY_BOOTSTRAP_SECRET=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_BOOTSTRAP_SECRET PYTHONUNBUFFERED=1

srun --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=0 --wait=0 --mpi=none \
    apptainer run --nv --bind "$verl_workdir" "$image" ray-bootstrap --expect-gpus=4 -- \
    python3 -m verl.trainer.main_ppo algorithm.adv_estimator=gae \
    data.train_files="$data/train.parquet" data.val_files="$data/test.parquet" data.train_batch_size=256 \
    data.max_prompt_length=512 data.max_response_length=256 \
    actor_rollout_ref.model.path=Qwen/Qwen2.5-0.5B-Instruct actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=64 actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4 \
    actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8 \
    actor_rollout_ref.rollout.tensor_model_parallel_size=1 actor_rollout_ref.rollout.gpu_memory_utilization=0.4 \
    critic.optim.lr=1e-5 critic.model.path=Qwen/Qwen2.5-0.5B-Instruct critic.ppo_micro_batch_size_per_gpu=4 \
    trainer.logger=console trainer.val_before_train=False trainer.save_freq=10 trainer.test_freq=10 \
    trainer.nnodes="$SLURM_JOB_NUM_NODES" trainer.n_gpus_per_node=4 "$@"
