#!/bin/sh
# Every node runs this; its options go to ray-bootstrap. Without the variable Modin passes ray.init() a number of CPUs,
# which Ray refuses where a cluster runs.
cd "$(dirname "$0")" || exit
export MODIN_RAY_CLUSTER=True
exec ray-bootstrap "$@" -- python job.py
