"""Let NeMo-RL join the cluster by its own `init_ray`, and reserve a GPU on each node by its `RayVirtualCluster`."""

from __future__ import annotations

import os

from nemo_rl.distributed.virtual_cluster import RayVirtualCluster, init_ray
from ray.util import placement_group_table

init_ray()
nodes = int(os.environ["RAY_BOOTSTRAP_CLUSTER_NODES"])
cluster = RayVirtualCluster([1] * nodes, num_gpus_per_node=1)
groups = cluster.get_placement_groups()
places = {node for group in groups for node in placement_group_table(group)["bundles_to_node_id"].values()}
bundles = [(index, bundle) for index, group in enumerate(groups) for bundle in range(group.bundle_count)]
addresses = cluster.get_available_addresses_and_ports_batch(bundles)  # asked of each node, by a task there
print("nodes with a reserved GPU:", len(places), "addresses:", addresses)
if len(places) != nodes or len({host for host, _ in addresses}) != nodes:
    raise SystemExit("not every node is part of the virtual cluster")
