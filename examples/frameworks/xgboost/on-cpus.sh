#!/bin/sh
# Every node runs this; its options go to ray-bootstrap. Two CPUs, since Ray Data takes one beside the trainer's.
cd "$(dirname "$0")" || exit
export STORAGE=/shared/xgboost
exec ray-bootstrap "$@" --num-cpus=2 -- python job.py
