"""What does the cluster have? Prints its nodes and GPUs and passes or fails: the first thing to run on new machines.

ray-bootstrap -- python examples/count_gpus.py                             a laptop, or all pods of a Kubernetes Job
srun --ntasks-per-node=1 ray-bootstrap -- python examples/count_gpus.py    Slurm
... -- python examples/count_gpus.py --nodes 4 --gpus 32                   fails unless both are there
"""

from __future__ import annotations

import argparse
import sys

import ray


def main() -> int:
    parser = argparse.ArgumentParser(description="Print the cluster's nodes and GPUs.")
    parser.add_argument("--nodes", type=int, default=1, help="least number of nodes")
    parser.add_argument("--gpus", type=int, default=0, help="least number of GPUs")
    wanted = parser.parse_args()

    ray.init(logging_level="warning")
    nodes = [node for node in ray.nodes() if node["Alive"]]
    for node in nodes:
        cpus, gpus = (int(node["Resources"].get(kind, 0)) for kind in ("CPU", "GPU"))
        models = [name for name in node["Resources"] if name.startswith("NVIDIA")]
        print(f"{node['NodeManagerHostname']:24} {node['NodeManagerAddress']:16} {cpus:4} CPUs {gpus:3} GPUs", *models)
    gpus = int(ray.cluster_resources().get("GPU", 0))

    # Counting is not enough: a task on every node shows that work really runs there.
    @ray.remote(num_cpus=0)  # a head that only leads (--head-cpus=0) offers none
    def where() -> str:
        return ray.get_runtime_context().get_node_id()

    pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    tasks = [where.options(scheduling_strategy=pinned(node["NodeID"], soft=False)).remote() for node in nodes]
    answered = len(set(ray.get(tasks, timeout=120)))

    good = len(nodes) >= wanted.nodes and gpus >= wanted.gpus and answered == len(nodes)
    print(f"{'PASS' if good else 'FAIL'}: {len(nodes)} nodes, {gpus} GPUs, {answered} nodes ran a task")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
