"""Rehearse a whole run on this machine: each node on a host of its own, the agents as in production, and faults."""
