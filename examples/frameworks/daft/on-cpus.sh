#!/bin/sh
# Every node runs this; its options go to ray-bootstrap.
cd "$(dirname "$0")" || exit
export DAFT_PROGRESS_BAR=0
exec ray-bootstrap "$@" -- python job.py
