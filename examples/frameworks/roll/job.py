"""Let ROLL join the cluster by its own `init`, and reserve a GPU on each node by its `ResourceManager`."""

from __future__ import annotations

import os

import roll.platforms
from ray.util import placement_group_table

roll.platforms.current_platform = roll.platforms.CudaPlatform()  # its CPU platform asks Ray for "CPU"
from roll.distributed.scheduler.initialize import init  # noqa: E402
from roll.distributed.scheduler.resource_manager import ResourceManager  # noqa: E402

init()
nodes = int(os.environ["RAY_BOOTSTRAP_CLUSTER_NODES"])
groups = ResourceManager(num_gpus_per_node=1, num_nodes=nodes).placement_groups
places = {node for group in groups for node in placement_group_table(group)["bundles_to_node_id"].values()}
print("nodes with a reserved GPU:", len(places))
if len(places) != nodes:
    raise SystemExit("not every node has a placement group")
