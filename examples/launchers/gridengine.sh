#!/bin/bash
# A Ray cluster for the length of one Grid Engine job, and a program that uses it. Copy this file, or:
#
#     qsub -pe ray 4 gridengine.sh python train.py --epochs 3
#
# `ray` stands for a parallel environment of your site (`qconf -spl`, `qconf -sp NAME`) that has control_slaves TRUE, for
# qrsh. With allocation_rule 1 the number is that of the hosts; with $fill_up there may be fewer hosts than slots.

#$ -N ray
#$ -S /bin/bash
#$ -j y
# Where you submit it: a folder that all hosts see.
#$ -cwd
# Before qdel and h_rt kill the job they send SIGUSR2, some time ahead (`notify` of the queue, often 60 s). Without this
# line they kill it at once on all hosts, with nothing saved.
#$ -notify

set -e

# Your environment: `module load ...`, `source ~/venv/bin/activate`. It must be there on all hosts.

# The program: what follows this file on qsub's command line, or else this.
(($#)) || set -- python train.py

# Only the first host has the list of hosts, so the others get a copy. The head puts the secret of the run there too, in
# a file that only you can read. A variable would not keep it: qrsh writes them all to a file that anyone can read.
folder=$(mktemp -d "$PWD/ray-$JOB_ID.XXXXXX")
trap 'rm -rf "$folder"' EXIT
cp "$PE_HOSTFILE" "$folder/hosts"
export PE_HOSTFILE=$folder/hosts

# Grid Engine sends these to every process of the job, and a program that does not expect them would end. What ignores
# them from its start goes on; a program may still have a handler of its own.
trap '' USR1 USR2

# The same command on every host; the program runs on the first. Here it starts from the script, since most parallel
# environments let qrsh start nothing on the script's own host (job_is_first_task TRUE).
#   --launcher  this script starts the others, too: by itself a job's script is no node
#   -V          this script's environment
#   printf %q   a shell on the other host reads the words again; `exec` replaces that shell
command=(ray-bootstrap --launcher=gridengine --shared-dir="$folder" -- "$@")
for host in $(awk '!seen[$1]++ && NR > 1 { print $1 }' "$PE_HOSTFILE"); do
    qrsh -inherit -V "$host" "exec $(printf '%q ' "${command[@]}")" </dev/null &
done
"${command[@]}" &
head=$!

# SIGTERM lets the program save and ends all hosts.
trap 'kill -TERM "$head" || :' TERM USR2

# A trapped signal ends `wait`, so again, until the head has ended. Its status is the job's: the program's own, or one
# of ray-bootstrap's. The second `wait` is for the other hosts: the end of this script would kill what still clears up.
while kill -0 "$head" 2>/dev/null; do wait "$head" || :; done
status=0
wait "$head" || status=$?
wait
exit "$status"
