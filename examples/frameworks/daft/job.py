"""Group 100 000 rows with Daft, whose Ray runner uses all nodes of the run, and say which node had how many."""

from __future__ import annotations

import os
import socket

import daft
import ray

ray.init(logging_level="warning")
daft.set_runner_ray()


@daft.func.batch(return_dtype=str)
def host(numbers: daft.Series) -> list[str]:
    return [socket.gethostname()] * len(numbers)


rows = daft.range(100_000, partitions=8).with_column("host", host(daft.col("id")))
hosts = rows.groupby("host").count("id").to_pydict()
print("rows by host:", dict(zip(hosts["host"], hosts["id"], strict=True)))
if len(hosts["host"]) != int(os.environ["RAY_BOOTSTRAP_CLUSTER_NODES"]):
    raise SystemExit("not every node had a part of the rows")
