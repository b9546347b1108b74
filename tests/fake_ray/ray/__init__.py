"""Stands in for Ray by PYTHONPATH: it has what the agent's Ray child calls, and starts daemons that only wait.

Variables, all set by tests/agents.py:

FAKE_RAY_CLUSTER
    Folder that stands for GCS: one file per node, and the address of the head.
FAKE_RAY_RECORD
    File that gets one JSON line per ``ray start``: its argv and environment.
FAKE_RAY
    Words: what goes wrong, see :mod:`ray.scripts.scripts`.
"""

__version__ = "2.60.0"
