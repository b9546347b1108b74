"""The subcommands other than ``run``."""
