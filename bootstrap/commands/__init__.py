"""The subcommands beside ``run``."""
