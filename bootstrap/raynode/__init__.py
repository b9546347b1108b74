"""Ray on this node: its command line, ports, start and session."""
