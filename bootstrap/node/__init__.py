"""This machine: its address, resources, GPUs and /etc/hosts."""
