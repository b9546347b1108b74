#!/bin/bash
# LSF:  bsub < examples/launchers/lsf.sh
# https://www.ibm.com/docs/en/spectrum-lsf/10.1.0?topic=reference-blaunch
#BSUB -J ray
#BSUB -n 128
#BSUB -R "span[ptile=32]"
#BSUB -gpu "num=4"
#BSUB -W 1:00
#BSUB -o ray-%J.out

# Each host once: without -z, blaunch starts a task for each of the 128 slots.
hosts=$(echo $LSB_MCPU_HOSTS | xargs -n2 | cut -d' ' -f1 | xargs)
blaunch -z "$hosts" ray-bootstrap --grace=8s -- python train.py
