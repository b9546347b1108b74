set -ex
# Stands in for Xtuner's examples/v1/scripts/run_rl_submit.sh: its own Ray, its wait for all GPUs, and a job through tee.
ray stop --force
WORK_DIR=$(mktemp -d)
trap 'rm -r "$WORK_DIR"' EXIT
RAY_MASTER_ADDR=${MASTER_ADDR:-"127.0.0.1"}

if [ "${NODE_RANK:-0}" -eq 0 ]; then
    ray start --head --node-ip-address="$RAY_MASTER_ADDR" --port=6379 --dashboard-host=0.0.0.0 --dashboard-port=8265 \
        --temp-dir="$WORK_DIR"
else
    ray start --address="$RAY_MASTER_ADDR:6379" --block
fi
while true; do
    result=$(ray status | grep GPU | cut -d ' ' -f2 | cut -d '/' -f2)
    if [ "$result" = "$((NODE_COUNT * PER_NODE)).0" ]; then
        break
    fi
    sleep 2
done
RUNTIME_ENV_JSON=$(cat <<EOF_JSON
{"env_vars": {"WORK_DIR": "${WORK_DIR}", "MASTER_ADDR": "${RAY_MASTER_ADDR}", "PYTHONUNBUFFERED": "1"}}
EOF_JSON
)
ray job submit --address="http://127.0.0.1:8265" --runtime-env-json="$RUNTIME_ENV_JSON" \
    -- python -c 'import sys; sys.exit("out of memory")' 2>&1 | tee -a "$WORK_DIR/log"
echo submitted
