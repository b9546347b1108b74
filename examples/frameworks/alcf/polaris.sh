#!/bin/bash -l
# vLLM over several nodes of Polaris, in the place of setup_ray_cluster.sh:  qsub -A PROJECT .../alcf/polaris.sh
# https://docs.alcf.anl.gov/polaris/data-science/frameworks/vllm/
#PBS -N vllm
#PBS -l select=2
#PBS -l place=scatter
#PBS -l walltime=01:00:00
#PBS -l filesystems=home:eagle
#PBS -q debug
#PBS -j oe

cd "$PBS_O_WORKDIR" || exit
module use /soft/modulefiles
module load conda
conda activate # with ray-bootstrap in an environment of yours on top
: "${HF_TOKEN:?}"
export HF_HOME=/eagle/datasets/model-weights HF_DATASETS_CACHE=/eagle/datasets/model-weights
export OMP_NUM_THREADS=8 RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES=1
export http_proxy=http://proxy.alcf.anl.gov:3128 https_proxy=http://proxy.alcf.anl.gov:3128
export no_proxy="localhost,127.0.0.1${no_proxy:+,$no_proxy}"

# hsn0, in the place of `getent hosts $(hostname).hsn...`; mpiexec, in the place of ssh to each node.
mpiexec -n "$(sort -u "$PBS_NODEFILE" | wc -l)" --ppn 1 --cpu-bind none --line-buffer \
    ray-bootstrap --interface=hsn0 --expect-gpus=4 --num-cpus=32 --grace=8s -- \
    vllm serve meta-llama/Llama-3.1-70B-Instruct --port 8000 --tensor-parallel-size 4 --pipeline-parallel-size 2 \
    --distributed-executor-backend ray --dtype bfloat16 --trust-remote-code --max-model-len 8192
