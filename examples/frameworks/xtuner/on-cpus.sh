#!/bin/sh
# Every node runs this; its options go to ray-bootstrap. The GPU of each node is one in Ray's books only.
cd "$(dirname "$0")" || exit
exec ray-bootstrap "$@" --num-gpus=1 --num-cpus=8 -- python job.py
