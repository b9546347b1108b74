#!/bin/bash
# jsrun, in a job of LSF, as on Sierra and its like:  bsub < examples/launchers/jsrun.sh
# https://hpc.llnl.gov/banks-jobs/running-jobs/slurm-srun-versus-ibm-csm-jsrun
#BSUB -J ray
#BSUB -nnodes 4
#BSUB -W 60
#BSUB -o ray-%J.out

# One resource set a host, one task in it, with all CPUs and GPUs; jsrun binds a task to one core unless asked not to.
jsrun -r1 -a1 -c ALL_CPUS -g ALL_GPUS -b none ray-bootstrap -- python train.py
