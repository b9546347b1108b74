#!/bin/sh
# Every node runs this; its options go to ray-bootstrap.
cd "$(dirname "$0")" || exit
exec ray-bootstrap "$@" -- python job.py
