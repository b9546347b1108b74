"""ray-bootstrap: from the machines that a scheduler gave you to one Ray cluster, and out of it again."""

__version__ = "0.1.0"
