#!/bin/sh
# verl's SFT trainer on CPUs: three steps, FSDP2 over two nodes. Every node runs this; its options go to ray-bootstrap.
cd "$(dirname "$0")" || exit
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
export VERL_USE_EXTERNAL_MODULES=cpu_platform VERL_PLATFORM=cpu VERL_ENGINE_DEVICE=cuda # that engine does for CPUs, too
out=/shared/verl # seen by all nodes
exec ray-bootstrap "$@" --num-gpus=1 --num-cpus=10 -- sh -ec "
python tiny.py $out
python -m verl.trainer.sft_trainer_ray \
    model.path=$out/model +model.override_config.attn_implementation=eager model.use_remove_padding=false \
    engine.strategy=fsdp2 engine.use_torch_compile=false \
    data.train_files=$out/train.parquet data.train_batch_size=8 data.max_length=64 \
    trainer.nnodes=\$RAY_BOOTSTRAP_CLUSTER_NODES trainer.n_gpus_per_node=1 trainer.device=cpu trainer.logger=[console] \
    trainer.total_training_steps=3 trainer.total_epochs=1 trainer.default_local_dir=$out/steps hydra.run.dir=$out"
