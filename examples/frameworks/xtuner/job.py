"""Let Xtuner reserve a GPU on each node of the run, as its RL trainer does when it starts."""

from __future__ import annotations

import os

import ray
from ray.util import placement_group_table
from xtuner.v1.rl.utils import AcceleratorResourcesConfig, AutoAcceleratorWorkers

ray.init()
nodes = int(os.environ["RAY_BOOTSTRAP_CLUSTER_NODES"])
resources = AcceleratorResourcesConfig(num_workers=nodes, num_cpus_per_worker=1, cpu_memory_per_worker=1024**3)
group = AutoAcceleratorWorkers.build_placement_group(resources)
places = {*placement_group_table(group)["bundles_to_node_id"].values()}
print("nodes with a reserved GPU:", len(places))
if len(places) != nodes:
    raise SystemExit("not every node has a part of the placement group")
