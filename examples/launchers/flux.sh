#!/bin/bash
# Flux:  flux batch examples/launchers/flux.sh
# https://flux-framework.readthedocs.io/projects/flux-core/en/latest/man1/flux-run.html
#flux: --nodes=4 --exclusive
#flux: --time-limit=1h
#flux: --output=ray-{{id}}.out

# --nodes without --ntasks: one task on each node, with all of its CPUs and GPUs. Without exit-timeout=none Flux would
# end the job 30 s after a node has left it, without pmi=off Ray's workers would look like MPI ranks. `flux cancel` and
# the time limit send SIGTERM, and SIGKILL 5 s later (exec.kill-timeout).
flux run --nodes="$(flux getattr size)" -o exit-timeout=none -o pmi=off ray-bootstrap --grace=4s -- python train.py
