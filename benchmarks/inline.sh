#!/bin/bash
# The inline bash that everybody copies (an Indexed Job's container command), with the workload where it says
# `sleep infinity`. Its waits, its polls and its order are its own. Arguments: RANK NODES PYTHON WORKLOAD...
set -e
NODE_RANK=$1 NODES=$2 PYTHON=$3
shift 3
MY_IP=$(hostname -I | awk '{print $1}')
echo "$MY_IP $(hostname)" >> /etc/hosts
MASTER_FILE="/shared/.ray-master-ip"
if [ "$NODE_RANK" -eq 0 ]; then
  MASTER_IP=$MY_IP
  rm -f "$MASTER_FILE"
  echo "$MY_IP" > "$MASTER_FILE"
  sync "$MASTER_FILE"
else
  for _ in $(seq 1 120); do
    if [ -f "$MASTER_FILE" ]; then
      MASTER_IP=$(cat "$MASTER_FILE")
      if [ -n "$MASTER_IP" ]; then break; fi
    fi
    sleep 2
  done
fi
if [ "$NODE_RANK" -eq 0 ]; then
  ray start --head --port=6379 --dashboard-host=0.0.0.0 --temp-dir=/tmp/ray --num-cpus=1 --num-gpus=0 --object-store-memory=104857600 --disable-usage-stats
  "$PYTHON" -c "
import ray, time, sys
ray.init(address='auto')
for _ in range(120):
    nodes = [n for n in ray.nodes() if n['Alive']]
    if len(nodes) >= $NODES:
        ray.shutdown(); sys.exit(0)
    time.sleep(5)
ray.shutdown(); sys.exit(1)
"
  "$@"
else
  for _ in $(seq 1 60); do
    "$PYTHON" -c "
import socket; s=socket.socket()
s.settimeout(2); s.connect(('$MASTER_IP',6379)); s.close()
" 2>/dev/null && break
    sleep 3
  done
  ray start --address="$MASTER_IP:6379" --temp-dir=/tmp/ray --num-cpus=1 --num-gpus=0 --object-store-memory=104857600 --block
fi
