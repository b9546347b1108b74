#!/bin/bash -l
# vLLM over several nodes of Aurora, in the place of setup_ray_cluster.sh:  qsub -A PROJECT .../alcf/aurora.sh
# https://docs.alcf.anl.gov/aurora/data-science/inference/vllm/
#PBS -N vllm
#PBS -l select=2
#PBS -l place=scatter
#PBS -l walltime=01:00:00
#PBS -l filesystems=home:flare
#PBS -q debug
#PBS -j oe

cd "$PBS_O_WORKDIR" || exit
module load frameworks # with ray-bootstrap in an environment of yours on top
: "${HF_TOKEN:?}"
export HF_HOME=/flare/datasets/model-weights HF_DATASETS_CACHE=/flare/datasets/model-weights OMP_NUM_THREADS=8
export ZE_FLAT_DEVICE_HIERARCHY=FLAT CCL_ZE_IPC_EXCHANGE=sockets CCL_PROCESS_LAUNCHER=hydra
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0 RAY_EXPERIMENTAL_NOSET_ONEAPI_DEVICE_SELECTOR=1
export ONEAPI_DEVICE_SELECTOR='opencl:gpu;level_zero:0,1,2,3,4,5,6,7'
export http_proxy=http://proxy.alcf.anl.gov:3128 https_proxy=http://proxy.alcf.anl.gov:3128
export no_proxy="localhost,127.0.0.1${no_proxy:+,$no_proxy}"

# 8 of the 12 tiles, as vLLM splits the model in 8; NVML knows none of them, hence the number.
mpiexec -n "$(sort -u "$PBS_NODEFILE" | wc -l)" --ppn 1 --cpu-bind none --line-buffer \
    ray-bootstrap --interface=hsn0 --num-gpus=8 --num-cpus=64 --grace=8s -- \
    vllm serve meta-llama/Llama-3.1-405B-Instruct --port 8000 --tensor-parallel-size 8 --pipeline-parallel-size 2 \
    --distributed-executor-backend ray --dtype bfloat16 --trust-remote-code --max-model-len 8192 --enforce-eager
