#!/bin/bash
# The floor: stock `ray start` with the head's address known, 50 ms polls, and no other cost; what a launcher of no
# weight at all would need. Arguments: RANK NODES PYTHON HEAD_IP MY_IP WORKLOAD...
set -e
NODE_RANK=$1 NODES=$2 PYTHON=$3 HEAD=$4 MINE=$5
shift 5
COMMON=(--node-ip-address="$MINE" --temp-dir=/tmp/ray --num-cpus=1 --num-gpus=0 --object-store-memory=104857600)
if [ "$NODE_RANK" -eq 0 ]; then
  ray start --head --port=6379 --disable-usage-stats "${COMMON[@]}"
  "$PYTHON" -c "
import ray, time
from ray._private.state import GlobalState
from ray._raylet import GcsClientOptions
state = GlobalState()
state._initialize_global_state(GcsClientOptions.create('$HEAD:6379', None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False))
while sum(n['Alive'] for n in state.node_table()) < $NODES:
    time.sleep(0.05)
"
  "$@"
else
  until (exec 3<>"/dev/tcp/$HEAD/6379") 2>/dev/null; do sleep 0.05; done
  ray start --address="$HEAD:6379" "${COMMON[@]}" --block
fi
