#!/bin/bash
# OAR:  oarsub -S ./examples/launchers/oar.sh
# https://oar.readthedocs.io/en/2.5/user/commands/oarsub.html
#OAR -n ray
#OAR -l /nodes=4,walltime=1:00:00
#OAR --checkpoint 60 --signal 15

# oardel and the walltime are SIGKILL. SIGTERM comes 60 s before the walltime, and by `oardel -c`: -tt makes the end of
# oarsh a SIGHUP to the agent there, which then has --grace.
trap 'kill "${tasks[@]}"; sleep 25; exit 143' TERM

task="cd '$PWD' && export PATH='$PATH' && exec ray-bootstrap -- python train.py"
tasks=()
for host in $(sort -u "$OAR_NODEFILE"); do
    oarsh -tt "$host" "$task" </dev/null &
    tasks+=($!)
done
for each in "${tasks[@]}"; do wait "$each" || status=$?; done
exit "${status:-0}"
