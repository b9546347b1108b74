"""Let Modin apply a function to 20 000 rows, on all nodes of the run, and say which node had how many."""

from __future__ import annotations

import os
import socket

import modin.pandas as pd

rows = pd.DataFrame({"number": range(20_000)})
hosts = rows.apply(lambda _: socket.gethostname(), axis=1).value_counts()
print("rows by host:", dict(hosts))
if len(hosts) != int(os.environ["RAY_BOOTSTRAP_CLUSTER_NODES"]):
    raise SystemExit("not every node had a part of the rows")
