#!/bin/bash
# MPICH, Intel MPI:  examples/launchers/mpich.sh hosts.txt
# One name a line; within a job of Slurm, PBS or LSF leave -f out.
# https://github.com/pmodels/mpich/blob/main/doc/wiki/how_to/Using_the_Hydra_Process_Manager.md

# Nothing that Hydra sets names the run. $PWD lies where all hosts see it.
mpiexec -f "$1" -ppn 1 -genv RAY_BOOTSTRAP_RUN_ID "$USER-$(date +%s)-$$" \
    ray-bootstrap --shared-dir="$PWD" -- python train.py
