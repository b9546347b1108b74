#!/bin/bash
# Open MPI 4 or 5:  examples/launchers/openmpi.sh hosts.txt
# One `name slots=N` a line; within a job of Slurm, PBS or LSF leave --hostfile out.
# https://docs.open-mpi.org/en/v5.0.x/man-openmpi/man1/mpirun.1.html

# Open MPI binds a process to one CPU unless asked not to. $PWD lies where all hosts see it.
mpirun --hostfile "$1" --map-by ppr:1:node --bind-to none -x RAY_BOOTSTRAP_RUN_ID="$USER-$(date +%s)-$$" \
    ray-bootstrap --shared-dir="$PWD" -- python train.py
