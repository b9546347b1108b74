"""The command line, as Ray's."""
