"""Processes: the table, the supervisor, the agent's children, and calls with a time limit."""
