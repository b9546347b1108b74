#!/bin/bash
# Hosts without a scheduler:  examples/launchers/ssh-hostfile.sh hosts.txt       https://man.openbsd.org/ssh
# One name or address a line, the head first. That file, this folder and the Python environment lie where all hosts see
# them under the same path.
hosts=$(realpath "$1") || exit
run=$USER-$(date +%s)-$$

# -tt makes the end of ssh, as by Ctrl-C here, a SIGHUP to the agent there, which then ends in order.
trap 'kill "${tasks[@]}"; exit 143' INT TERM

task="cd '$PWD' && export PATH='$PATH' && exec ray-bootstrap --hostfile='$hosts' --run-id='$run' -- python train.py"
tasks=()
for host in $(sed 's/#.*//' "$hosts" | awk 'NF && !seen[$1]++ {print $1}'); do
    ssh -tt "$host" "$task" </dev/null &
    tasks+=($!)
done
for each in "${tasks[@]}"; do wait "$each" || status=$?; done
exit "${status:-0}"
