"""Let RLinf place a worker on each node, and each send a tensor to the next one, by its scheduler alone, on CPUs."""

from __future__ import annotations

import os
import socket

import torch
from rlinf.scheduler import Cluster, NodePlacementStrategy, Worker

NODES = int(os.environ["RAY_BOOTSTRAP_CLUSTER_NODES"])


class Neighbour(Worker):
    def exchange(self) -> tuple[str, int]:
        """Send this worker's rank to the next one; return this host's name and what came from the one before."""
        after, before = (self._rank + 1) % NODES, (self._rank - 1) % NODES
        sent = self.send(torch.tensor([self._rank]), self._group_name, after, async_op=True)
        received = self.recv(self._group_name, before)
        sent.wait()
        return socket.gethostname(), int(received)


cluster = Cluster(num_nodes=NODES)
placement = NodePlacementStrategy(list(range(NODES)))
group = Neighbour.create_group().launch(cluster=cluster, name="neighbours", placement_strategy=placement)
answers = group.exchange().wait()
print("each worker's host, and the rank that it received:", answers)
if len({host for host, _ in answers}) != NODES:
    raise SystemExit("not every node had a worker")
