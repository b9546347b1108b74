"""Stands in for Ray by PYTHONPATH: it has what the agent's Ray child calls, and starts daemons that only wait.

Variables, all set by tests/agents.py:

FAKE_RAY_CLUSTER
    Folder that stands for GCS: one file per node, and the address of the head.
FAKE_RAY_RECORD
    File that gets one JSON line per ``ray start``: its argv and environment.
FAKE_RAY
    Words: what goes wrong, see :mod:`ray.scripts.scripts`.
"""

import os
import time
from pathlib import Path

while "slow-import" in os.environ.get("FAKE_RAY", "") and not Path(f"{os.environ['FAKE_RAY_RECORD']}.go").exists():
    time.sleep(0.01)

__version__ = "2.60.0"
