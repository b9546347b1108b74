#!/bin/bash
# open-instruct on Beaker: `'ray-bootstrap --'` in the place of `source configs/beaker_configs/ray_node_setup.sh \&\&`, and its
# NCCL_CUMEM_ENABLE; from its checkout. https://github.com/allenai/open-instruct
# One word, since mason.py makes a task of its own of all that follows a word `--`; the job's bash makes two of it.
uv run python mason.py --cluster ai2/jupiter --image "${BEAKER_IMAGE:?}" --pure_docker_mode --workspace ai2/open-instruct-dev \
    --priority urgent --preemptible --num_nodes 2 --gpus 8 --max_retries 0 --no_auto_dataset_cache \
    --env VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 --env NCCL_CUMEM_ENABLE=0 --secret RAY_BOOTSTRAP_SECRET=ray-secret \
    -- 'ray-bootstrap --' python open_instruct/grpo_fast.py \
    --exp_name grpo --model_name_or_path Qwen/Qwen2.5-7B --chat_template_name tulu_thinker \
    --dataset_mixer_list saurabh5/rlvr_acecoder_filtered 25376 --dataset_mixer_list_splits train \
    --num_learners_per_node 8 --vllm_num_engines 8 --deepspeed_stage 3 "$@"
