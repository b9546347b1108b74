"""Start a run's processes on this node: in the foreground (``run``, ``check --run``) or behind a shell (``up``)."""
