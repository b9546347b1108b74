"""Group 400 000 rows with Dask, whose tasks run on all nodes of the run, and say which node had how many partitions."""

from __future__ import annotations

import os
import socket

import dask.dataframe as dd
import pandas as pd
import ray
from ray.util.dask import enable_dask_on_ray

ray.init(logging_level="warning")
enable_dask_on_ray()
frame = dd.from_pandas(pd.DataFrame({"key": range(400_000)}), npartitions=8)
frame["key"] %= 7
print("largest group:", frame.groupby("key").size().compute().max())


def host(_: pd.DataFrame) -> pd.Series:
    return pd.Series([socket.gethostname()])


hosts = frame.map_partitions(host, meta=("host", str)).compute().value_counts()
print("partitions by host:", dict(hosts))
if len(hosts) != int(os.environ["RAY_BOOTSTRAP_CLUSTER_NODES"]):
    raise SystemExit("not every node had a partition")
