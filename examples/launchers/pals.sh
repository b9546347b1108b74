#!/bin/bash -l
# HPE Cray's mpiexec in a job of PBS, as on Polaris and Aurora:  qsub -A PROJECT examples/launchers/pals.sh
# https://docs.alcf.anl.gov/polaris/running-jobs/
#PBS -N ray
#PBS -l select=4
#PBS -l place=scatter
#PBS -l walltime=01:00:00
#PBS -l filesystems=home:eagle
#PBS -q debug-scaling
#PBS -j oe

cd "$PBS_O_WORKDIR" || exit
# Your environment: `module load conda; conda activate ...`

# The proxy to the internet must not get what is for Ray's dashboard on this host: `ray job`, `ray list`.
export no_proxy="localhost,127.0.0.1${no_proxy:+,$no_proxy}"

# hsn0: the names in PBS_NODEFILE are the management network's. PALS binds a process to one CPU unless asked not to.
mpiexec -n "$(sort -u "$PBS_NODEFILE" | wc -l)" --ppn 1 --cpu-bind none --line-buffer \
    ray-bootstrap --interface=hsn0 --grace=8s -- python train.py
