#!/bin/bash
# OpenPBS 22.05, PBS Professional 2022, or later:  qsub examples/launchers/pbs.sh
# pbs_tmrsh(8B), pbsdsh(1B): https://github.com/openpbs/openpbs/tree/master/doc
#PBS -N ray
#PBS -l select=4:ncpus=32:ngpus=4
#PBS -l place=scatter:excl
#PBS -l walltime=01:00:00
#PBS -j oe

# qdel and the walltime send SIGTERM to all processes of this host, and SIGKILL to the whole job as soon as this script
# has ended, or after 10 s (the queue's kill_delay).
trap 'sleep 10; exit 143' TERM

# Tasks begin in your home directory, without this script's environment. Not pbsdsh: its status is always 0.
task="cd '$PBS_O_WORKDIR' && export PATH='$PATH' && exec ray-bootstrap --grace=8s -- python train.py"
tasks=()
for host in $(sort -u "$PBS_NODEFILE"); do
    pbs_tmrsh "$host" /bin/bash -c "$task" &
    tasks+=($!)
done
for each in "${tasks[@]}"; do wait "$each" || status=$?; done
exit "${status:-0}"
