"""One run on this node, from the agent's first child process to its last log line."""
