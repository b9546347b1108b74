"""Rehearse a whole run on this machine: a host of its own for each node, the agents as in production, and faults."""
