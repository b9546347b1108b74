# The same script in every pod; bash is PID 1.
set -e
# A worker has nothing to go on with: the agent takes the shell's place and stays until the run ends.
[ "$JOB_COMPLETION_INDEX" = 0 ] || exec ray-bootstrap

# From here on pod 0. A bash that is PID 1 ignores SIGTERM without a trap, and runs a trap only between commands: so
# each long command runs in the background, and `wait` is what SIGTERM interrupts.
trap 'status=$?; trap "" TERM; ray-bootstrap down --status "$status"' EXIT
trap '[ -z "$!" ] || kill "$!" 2>/dev/null; wait; exit 143' TERM

ray-bootstrap up &
wait "$!"
eval "$(ray-bootstrap env)"

# Your commands, with the cluster there:
python /opt/ray-bootstrap/count_gpus.py --nodes "$RAY_BOOTSTRAP_NODES" &
wait "$!"
echo "and the script goes on"
